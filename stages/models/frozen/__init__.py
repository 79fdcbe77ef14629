"""Activations of the frozen body: stored ones, and those of augmented pictures."""
