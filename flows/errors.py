"""Errors that end a run or a stage. The messages that flows/ writes itself have one line and say what to do next."""


class PipelineError(Exception):
    """An error that a user can fix. The message says what was found, where, what was expected and what to do next."""


class FailedError(Exception):
    """A program ended with another exit code than 0. The message holds the last lines of its output."""


class StoppedError(Exception):
    """Somebody cancelled the run."""
