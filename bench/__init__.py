"""Measures the figures in docs/results.md: `make bench`. No stage uses this package."""
