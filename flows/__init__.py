"""Prefect flows: they start stages and compute nothing."""
