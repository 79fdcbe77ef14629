"""What is learnt: targets, loss, predictions, metrics."""
