"""Tables: the parts of the split, which later stages read, and Kaggle's submission."""
