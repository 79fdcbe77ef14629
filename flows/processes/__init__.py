"""Starts programs, stops them cleanly, and locks a clone or GPUs."""
