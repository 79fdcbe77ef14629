"""Networks, activations of the frozen body, and exported model files."""
