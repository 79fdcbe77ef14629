"""How pictures are split into training and validation sets: folds, groups, near duplicates."""
