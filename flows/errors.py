"""Errors that end a run or a stage. Each message speaks to the person who must act, in one line where we write it."""


class PipelineError(Exception):
    """A user can correct it: what was found, where, what was expected, what to do next."""


class FailedError(Exception):
    """A program did not end with exit code 0; the message is its last lines."""


class StoppedError(Exception):
    """Somebody cancelled the run."""
