"""Stores bytes by the sha256 of the picture that they belong to. Nothing in it is specific to machine learning."""
