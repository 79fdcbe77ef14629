"""Weights files of other programs: their tensors under timm's names."""
