"""Runs a Python module that ends when its parent process ends: `... child FD MODULE ARGUMENTS...`.

FD is the file descriptor of a pipe whose other end the parent holds open. Without this program, a run that is killed
(SIGKILL, a closed terminal) would leave its stage running and DVC's locks held.
"""

import os
import runpy
import signal
import sys
import threading
from contextlib import suppress

import psutil

GRACE_SECONDS = 7  # a cancelled run has to end within 10 s


def session_processes(leader: int) -> list[psutil.Process]:
    """Returns the other processes of the session that `leader` leads: all that were started below it, even if the shell
    between them has ended."""
    processes = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if process.pid != leader and os.getsid(process.pid) == leader:
                processes.append(process)
    return processes


def end_with_parent(pipe: int) -> None:
    """Waits until the parent's end of the pipe is closed, then stops the commands that DVC started. DVC then ends by
    itself, as after any command that failed. If DVC runs no command, SIGINT ends it."""
    os.read(pipe, 1)
    commands = session_processes(os.getpid())
    for process in commands:
        with suppress(psutil.NoSuchProcess):  # it has just ended
            process.terminate()
    if not commands:
        os.kill(os.getpid(), signal.SIGINT)
    for process in psutil.wait_procs(commands, GRACE_SECONDS)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def main() -> None:
    pipe, module = int(sys.argv[1]), sys.argv[2]
    # A shell starts its background jobs with SIGINT ignored. Python would inherit that, and DVC could not be stopped
    # cleanly.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=end_with_parent, args=(pipe,), daemon=True).start()
    sys.argv = [module, *sys.argv[3:]]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
