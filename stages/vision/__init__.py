"""Everything that handles pixels."""
