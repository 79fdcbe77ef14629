"""Bytes found by the sha256 of the picture that they belong to. Knows nothing of machine learning."""
