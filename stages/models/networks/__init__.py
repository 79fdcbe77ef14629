"""The networks: body, head, and both joined."""
