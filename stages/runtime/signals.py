"""Being asked to stop: SIGTERM (a preempted worker, a cancelled run) or Ctrl-C. The step at hand ends, then the stage
leaves, with what it has done kept for the next run. Work that `track` shows can be stopped between two of its items.

A stage whose DVC was killed stops too: else it would replace the outputs of the next run.
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
    """From now on both signals are remembered and not obeyed at once; who presses Ctrl-C twice is."""
    signal.signal(signal.SIGTERM, _remember)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # a shell's background jobs ignore it
        signal.signal(signal.SIGINT, _remember)


def _remember(number: int, _: FrameType | None) -> None:
    global _asked
    if number == signal.SIGINT:
        signal.signal(number, signal.default_int_handler)
    if not _asked:
        print("stopping after this step", file=sys.stderr, flush=True)
    _asked = True


def check() -> None:
    """Raises Stopped."""
    if _asked or ("DVC_STAGE" in os.environ and os.getppid() != PARENT):
        raise Stopped
