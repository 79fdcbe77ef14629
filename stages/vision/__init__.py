"""All that knows pixels."""
