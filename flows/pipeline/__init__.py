"""Reads what DVC knows about a pipeline: graph, changes, dvc.lock, params, and what a run would do."""
