"""How clones exchange commits, data and results, and how a worker runs a stage for another clone."""
