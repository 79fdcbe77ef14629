"""Reads what DVC knows of a pipeline: its graph, what changed, dvc.lock, params, and what a run would do."""
