"""Training and prediction on batches of any kind: nothing here depends on pictures."""
