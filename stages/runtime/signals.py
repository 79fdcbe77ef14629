"""Stops a stage gracefully on SIGTERM (a preempted worker, a cancelled run) or Ctrl-C.

The stage ends the current picture or batch, exits, and keeps its progress for the next run. Loops over `track` can be
stopped between two items. A stage also stops if the DVC process that started it was killed: otherwise the stage would
replace the outputs of the next run.
"""

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 75  # EX_TEMPFAIL in sysexits.h: not done, run it again

PARENT_PID = os.getppid()

_stop_requested = False


class Stopped(BaseException):
    """The stage was asked to stop."""


def install_handlers() -> None:
    """Makes both signals only set a flag, which `check` reads; a second Ctrl-C interrupts at once."""
    signal.signal(signal.SIGTERM, _request_stop)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell ignores SIGINT for background jobs
        signal.signal(signal.SIGINT, _request_stop)


def _request_stop(number: int, _: FrameType | None) -> None:
    global _stop_requested
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)
    if not _stop_requested:
        print("stopping after the current picture or batch", file=sys.stderr, flush=True)
    _stop_requested = True


def check() -> None:
    """Raises Stopped if the stage was asked to stop, or if its DVC process is gone."""
    if _stop_requested or ("DVC_STAGE" in os.environ and os.getppid() != PARENT_PID):
        raise Stopped
