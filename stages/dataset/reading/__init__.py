"""The folder of the user's pictures: which files there are, and how they are labelled."""
