"""The training loop and its parts: steps, optimiser, schedules, freezing, checkpoints, the range test."""
