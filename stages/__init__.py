"""The recipe: one module a stage. Stages import neither dvc nor prefect and run by hand: `python -m stages.<stage>`."""
