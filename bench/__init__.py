"""What the figures in the README were measured with: `make bench`. Part of no stage."""
