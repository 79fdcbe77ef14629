"""Weights that other programs wrote, found and named as ours."""
