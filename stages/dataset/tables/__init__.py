"""Tables that later stages read and people get: the parts of the split, Kaggle's submission."""
