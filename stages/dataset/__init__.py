"""Which pictures there are, their labels, and the split into training, validation and test set."""
