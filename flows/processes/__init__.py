"""Starts programs and stops them cleanly; locks for a clone and for GPUs."""
