"""Training and prediction. Knows no pixels: it takes batches, whatever is in them."""
