"""What two stages share: one concept a file."""
