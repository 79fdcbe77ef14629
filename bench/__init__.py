"""What the figures in docs/results.md were measured with: `make bench`. Part of no stage."""
