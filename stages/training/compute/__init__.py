"""What training and prediction share: device and precision, batches, the forward pass over all of them."""
