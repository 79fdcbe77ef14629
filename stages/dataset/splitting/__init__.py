"""Which pictures train and which validate: folds, groups, near duplicates."""
