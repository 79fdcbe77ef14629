"""Runs a Python module so that it ends with the process that started it: `... child FD MODULE ARGUMENTS...`.

FD is a pipe whose other end the parent holds open. Without this, a run that is killed (SIGKILL, a closed terminal)
would leave its stage running and DVC's locks held.
"""

import os
import runpy
import signal
import sys
import threading
from contextlib import suppress

import psutil

GRACE_SECONDS = 7  # of the 10 within which a cancelled run has to be gone


def session(leader: int) -> list[psutil.Process]:
    """All processes that were started below `leader`, those left behind by a shell that has ended among them."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if process.pid != leader and os.getsid(process.pid) == leader:
                found.append(process)
    return found


def end_with_parent(pipe: int) -> None:
    """Block until the parent's end is closed, then stop the commands below: DVC then ends by itself, as for any command
    that failed."""
    os.read(pipe, 1)
    below = session(os.getpid())
    for process in below:
        with suppress(psutil.NoSuchProcess):  # it has just ended: go on with the others
            process.terminate()
    if not below:
        os.kill(os.getpid(), signal.SIGINT)
    for process in psutil.wait_procs(below, GRACE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    pipe, module = int(sys.argv[1]), sys.argv[2]
    # A shell starts background jobs with SIGINT ignored, and Python would inherit that: no way to stop DVC cleanly.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=end_with_parent, args=(pipe,), daemon=True).start()
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
