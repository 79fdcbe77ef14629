"""Looking at what was built: what `evaluate` and `report` draw, count and pick."""
