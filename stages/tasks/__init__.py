"""The task: targets, loss, predictions, metrics."""
