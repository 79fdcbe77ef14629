"""Runs a program whose output goes to a log, and stops it without leaving DVC's locks behind."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from flows.errors import FailedError, StoppedError
from flows.processes.child import GRACE_SECONDS, session

TAIL_LINES = 15
WORKS = 42  # exit code of a shell that was told to end with it
HINTS = ("To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push` to")
LOG_SECONDS, LOG_LINES = 0.5, 200  # each record of Prefect's costs milliseconds: some stages print thousands of lines


def run(
    program: Sequence[str],
    log: Callable[[str], None],
    stop: threading.Event,
    keep: tuple[str, ...] = (),
    settings: Mapping[str, str] | None = None,
) -> list[str]:
    """Run a Python module to its end; returns those of its lines that start with one of `keep`.

    Args:
        program: the module, as after `python -m`, and its arguments.
        log: gets the lines as they come, twice a second, without DVC's hints on what to type next.
        stop: when set, the process is stopped.
        keep: beginnings of lines to return, however many other lines there are.
        settings: further environment variables.

    Raises:
        FailedError: it did not end with exit code 0.
        StoppedError: `stop` was set.
    """
    given, held = os.pipe()  # `held` closes when we end, however we end, and the child then sees it
    process = subprocess.Popen(  # noqa: S603 (commands of ours, and the user's own dvc.yaml)
        [sys.executable, "-m", "flows.processes.child", str(given), *program],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        start_new_session=True, pass_fds=[given], env=environment() | dict(settings or {}),
    )  # fmt: skip
    os.close(given)
    output = Output(process.stdout, log, keep)
    asked: set[int] = set()
    try:
        while process.poll() is None:
            if stop.wait(0.05):
                terminate(process, asked)
            output.flush()
    except BaseException:  # SIGTERM in the main thread of a worker's flow: the process must not outlive it
        terminate(process, asked)
        raise
    finally:
        os.close(held)
    output.end()
    if process.returncode and stop.is_set():
        raise StoppedError("stopped")
    if process.returncode:
        raise FailedError("\n".join(output.tail) or f"exit code {process.returncode}, no output")
    return output.kept


class Output:
    """Reads a pipe without pause, so that a stage never waits for the log."""

    def __init__(self, pipe: Any, log: Callable[[str], None], keep: tuple[str, ...]) -> None:
        self.log, self.keep, self.kept, self.tail = log, keep, list[str](), deque[str](maxlen=TAIL_LINES)
        self.new: deque[str] = deque(maxlen=LOG_LINES)
        self.n_new, self.flushed, self.lock = 0, time.monotonic(), threading.Lock()
        self.reader = threading.Thread(target=self.read, args=(pipe,), daemon=True)
        self.reader.start()

    def read(self, pipe: Any) -> None:
        with pipe:
            for line in pipe:
                if not (text := line.rstrip()):
                    continue
                with self.lock:
                    self.tail.append(text)
                    if text.startswith(self.keep):
                        self.kept.append(text)
                    if not text.lstrip().startswith(HINTS):
                        self.new.append(text)
                        self.n_new += 1

    def flush(self, now: bool = False) -> None:
        if self.n_new and (now or time.monotonic() - self.flushed >= LOG_SECONDS):
            with self.lock:
                lines, left_out = [*self.new], self.n_new - len(self.new)
                self.new.clear()
                self.n_new = 0
            self.log("\n".join([*([f"... {left_out:,} lines left out ..."] if left_out else []), *lines]))
            self.flushed = time.monotonic()

    def end(self) -> None:
        self.reader.join(timeout=2)  # a process that was left behind may hold the pipe
        self.flush(now=True)


def environment() -> dict[str, str]:
    """This process's variables, with this interpreter's folder on PATH: `python` in a stage's command is this one."""
    here, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    return os.environ | {
        "PATH": path if here in path.split(os.pathsep) else f"{here}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # what `run` reads, whatever the locale
        "SHELL": shell(os.environ.get("SHELL", "")),
    }


@cache
def shell(named: str) -> str:
    """The shell by which DVC runs a stage: $SHELL if it runs commands, which that of a service account does not.

    Where $SHELL is unset, as in many containers, DVC takes /bin/sh, which would stay between DVC and the stage, and on
    a stop end before the stage has saved its checkpoint; bash replaces itself by the command.
    """
    with suppress(OSError, subprocess.TimeoutExpired):
        command = [named, "-c", f"exit {WORKS}"]
        if named and subprocess.run(command, capture_output=True, timeout=5).returncode == WORKS:  # noqa: S603
            return named
    return shutil.which("bash") or "/bin/sh"


def terminate(process: subprocess.Popen[str], asked: set[int]) -> None:
    """Stop a `dvc repro` so that it releases its locks, within GRACE_SECONDS and a bit.

    SIGTERM would end DVC with its entries left in .dvc/tmp/rwlock. So the command below it gets SIGTERM, and DVC ends
    by itself as for any stage that failed; where it runs no command, SIGINT ends it cleanly. Each process gets one
    signal, also where this is called again (`asked`: their pids): a second one would interrupt its cleaning up.
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
