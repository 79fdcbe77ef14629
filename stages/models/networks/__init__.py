"""The networks: body, head, the two joined."""
