"""Batches of pictures on the device: preprocessing, augmentation, feeds."""
