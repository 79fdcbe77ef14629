"""What a process of a run does first: `python -m flows.processes.child FD dvc|remote ARGUMENTS...`.

It can be stopped cleanly, and it does not outlive the one who started it: FD is a pipe whose other end that one holds.
A run that is killed (SIGKILL, a terminal that is closed) would else leave its stage at work, with DVC's locks held.
"""

import os
import signal
import sys
import threading
from contextlib import suppress

import psutil

GRACE_SECONDS = 7  # of the 10 within which a cancelled run has to be gone


def session(leader: int) -> list[psutil.Process]:
    """What was started below a process: also what was left behind by a shell that has ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if process.pid != leader and os.getsid(process.pid) == leader:
                found.append(process)
    return found


def end_with_parent(pipe: int) -> None:
    """Block until the other end is closed, then end the commands below; DVC ends by itself as for any that failed."""
    os.read(pipe, 1)
    below = session(os.getpid())
    for process in below:
        with suppress(psutil.NoSuchProcess):  # gone in the meantime: the others are still to be told
            process.terminate()
    if not below:
        os.kill(os.getpid(), signal.SIGINT)
    for process in psutil.wait_procs(below, GRACE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    pipe, program = int(sys.argv[1]), sys.argv[2]
    # A shell starts background jobs with SIGINT ignored, and Python would inherit that: no way to stop DVC cleanly.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=end_with_parent, args=(pipe,), daemon=True).start()
    sys.argv = [program, *sys.argv[3:]]
    if program == "dvc":
        from dvc.cli import main as dvc

        sys.exit(dvc())
    from flows.sharing.remote import main as remote

    remote()


if __name__ == "__main__":
    main()
