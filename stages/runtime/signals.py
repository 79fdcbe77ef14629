"""Graceful stop on SIGTERM (a preempted worker, a cancelled run) or Ctrl-C: the current step ends, then the stage exits
and keeps its progress for the next run. Loops over `track` can be stopped between two items.

A stage also stops if the DVC process that started it was killed: else it would replace the outputs of the next run.
"""

import os
import signal
import sys
from types import FrameType

EXIT_CODE = 75  # sysexits.h, EX_TEMPFAIL: not done, to be run again

PARENT = os.getppid()

_asked = False


class Stopped(BaseException):
    """The stage was asked to stop."""


def install_handlers() -> None:
    """Both signals now only set a flag, which `check` reads; a second Ctrl-C interrupts at once."""
    signal.signal(signal.SIGTERM, _remember)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # set for a shell's background jobs: leave it
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, _: FrameType | None) -> None:
    global _asked
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)
    if not _asked:
        print("stopping after this step", file=sys.stderr, flush=True)
    _asked = True


def check() -> None:
    """Raises Stopped if the stage was asked to stop, or if its DVC process is gone."""
    if _asked or ("DVC_STAGE" in os.environ and os.getppid() != PARENT):
        raise Stopped
