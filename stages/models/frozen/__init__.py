"""The frozen body over pictures: its activations, stored, or of augmented pictures."""
