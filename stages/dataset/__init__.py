"""Which pictures there are, what they are labelled, and which of them train and validate."""
