"""A process whose output streams into a log and that can be stopped without leaving DVC's locks behind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

TAIL_LINES = 15
GRACE_SECONDS = 7  # of the 10 within which a cancelled run has to be gone
HINTS = ("To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push` to")
# A shell starts background jobs with SIGINT ignored, and Python would inherit that: no way to stop DVC cleanly.
INTERRUPTIBLE = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
DVC = [sys.executable, "-c", f"{INTERRUPTIBLE} import sys; from dvc.cli import main; sys.exit(main())"]


class FailedError(Exception):
    """The process's last lines."""


class StoppedError(Exception):
    """Somebody cancelled the run."""


def run(
    command: Sequence[str], log: Callable[[str], None], stop: threading.Event, settings: Mapping[str, str] | None = None
) -> list[str]:
    """Run to the end; returns the lines printed.

    Args:
        log: gets each line as it comes, without DVC's hints on what to type next.
        stop: when set, the process is stopped.
        settings: further environment variables.

    Raises:
        FailedError: it did not end with 0.
        StoppedError: `stop` was set.
    """
    process = subprocess.Popen(  # noqa: S603 (commands of ours, and the user's own dvc.yaml)
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
        env=environment() | dict(settings or {}),
    )  # fmt: skip
    lines: list[str] = []
    reader = threading.Thread(target=read, args=(process.stdout, lines, log), daemon=True)
    reader.start()
    asked: set[int] = set()
    try:
        while process.poll() is None:
            if stop.wait(0.05):
                terminate(process, asked)
    except BaseException:  # SIGTERM in the main thread of a worker's flow: the process must not outlive it
        terminate(process, asked)
        raise
    reader.join(timeout=2)  # something that was left behind may hold the pipe
    if process.returncode and stop.is_set():
        raise StoppedError("stopped")
    if process.returncode:
        raise FailedError("\n".join(deque(lines, TAIL_LINES)) or f"exit code {process.returncode}, no output")
    return lines


def environment() -> dict[str, str]:
    """Ours, with this interpreter's folder on PATH: `python -m stages...` must not be some other Python."""
    here, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    return os.environ | {
        "PATH": path if here in path.split(os.pathsep) else f"{here}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
    }


def read(pipe: Any, lines: list[str], log: Callable[[str], None]) -> None:
    for line in pipe:
        if text := line.rstrip():
            lines.append(text)
            if not text.lstrip().startswith(HINTS):
                log(text)


def terminate(process: subprocess.Popen[str], asked: set[int]) -> None:
    """Stop a `dvc repro` so that it lets go of its locks, within GRACE_SECONDS and a bit.

    SIGTERM would end DVC with its entries left in .dvc/tmp/rwlock. The command below it gets SIGTERM instead, and DVC
    ends by itself as for any stage that failed; where it runs no command, SIGINT ends it cleanly. Each is asked once,
    also where this is called again (`asked`: pids): a second signal would break off the tidying up.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        below = session(process.pid)
        for child in below:
            if child.pid not in asked:
                with suppress(psutil.NoSuchProcess):
                    child.terminate()
        if not below and not asked:
            process.send_signal(signal.SIGINT)
            asked.add(process.pid)
        asked |= {child.pid for child in below}
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
    for child in session(process.pid):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    try:
        process.wait(timeout=1.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def session(leader: int) -> list[psutil.Process]:
    """What was started below a process: also what was left behind by a shell that has ended."""
    found = []
    for process in psutil.process_iter():
        with suppress(OSError):
            if process.pid != leader and os.getsid(process.pid) == leader:
                found.append(process)
    return found
