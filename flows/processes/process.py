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
from flows.processes.child import GRACE_SECONDS, session_processes

TAIL_LINES = 15
PROBE_EXIT_CODE = 42  # `shell` tells a shell to exit with this code, to check that the shell runs commands
DVC_HINTS = (
    "To track the changes", "git add ", "To enable auto staging", "dvc config core.autostage", "Use `dvc push` to",
)  # fmt: skip
# One log record holds at most LOG_LINES lines of LOG_SECONDS, because a record takes Prefect milliseconds and some
# stages print thousands of lines.
LOG_SECONDS, LOG_LINES = 0.5, 200


def run(
    program: Sequence[str],
    log: Callable[[str], None],
    stop: threading.Event,
    kept_prefixes: tuple[str, ...] = (),
    variables: Mapping[str, str] | None = None,
) -> list[str]:
    """Runs a Python module to its end. Returns the lines of its output that start with one of `kept_prefixes`.

    Args:
        program: the module, as after `python -m`, and its arguments.
        log: is called with the new lines about twice a second, without DVC's hints on what to type next.
        stop: when it is set, the process is stopped.
        kept_prefixes: how the lines to return begin.
        variables: further environment variables.

    Raises:
        FailedError: the module ended with another exit code than 0.
        StoppedError: `stop` was set.
    """
    # The system closes `parent_end` when this process ends for any reason, and the child notices that.
    child_end, parent_end = os.pipe()
    process = subprocess.Popen(  # noqa: S603 (commands of flows/, and of the user's own dvc.yaml)
        [sys.executable, "-m", "flows.processes.child", str(child_end), *program],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8", errors="replace",
        start_new_session=True, pass_fds=[child_end], env=environment() | dict(variables or {}),
    )  # fmt: skip
    os.close(child_end)
    output = Output(process.stdout, log, kept_prefixes)
    signalled: set[int] = set()
    try:
        while process.poll() is None:
            if stop.wait(0.05):
                terminate(process, signalled)
            output.flush()
    except BaseException:  # for example SIGTERM in a worker's flow, which the process must not outlive
        terminate(process, signalled)
        raise
    finally:
        os.close(parent_end)
    output.end()
    if process.returncode and stop.is_set():
        raise StoppedError("stopped")
    if process.returncode:
        raise FailedError("\n".join(output.tail) or f"exit code {process.returncode}, no output")
    return output.kept_lines


class Output:
    """Reads a pipe in a thread of its own, so that a stage never waits for the log."""

    def __init__(self, pipe: Any, log: Callable[[str], None], kept_prefixes: tuple[str, ...]) -> None:
        self.log, self.kept_prefixes, self.kept_lines = log, kept_prefixes, list[str]()
        self.tail, self.new_lines = deque[str](maxlen=TAIL_LINES), deque[str](maxlen=LOG_LINES)
        self.n_new, self.flush_time, self.lock = 0, time.monotonic(), threading.Lock()
        self.reader = threading.Thread(target=self.read, args=(pipe,), daemon=True)
        self.reader.start()

    def read(self, pipe: Any) -> None:
        with pipe:
            for line in pipe:
                if not (text := line.rstrip()):
                    continue
                with self.lock:
                    self.tail.append(text)
                    if text.startswith(self.kept_prefixes):
                        self.kept_lines.append(text)
                    if not text.lstrip().startswith(DVC_HINTS):
                        self.new_lines.append(text)
                        self.n_new += 1

    def flush(self, now: bool = False) -> None:
        if self.n_new and (now or time.monotonic() - self.flush_time >= LOG_SECONDS):
            with self.lock:
                lines, n_left_out = [*self.new_lines], self.n_new - len(self.new_lines)
                self.new_lines.clear()
                self.n_new = 0
            self.log("\n".join([*([f"... {n_left_out:,} lines left out ..."] if n_left_out else []), *lines]))
            self.flush_time = time.monotonic()

    def end(self) -> None:
        self.reader.join(timeout=2)  # a process that outlived the stage may hold the pipe open
        self.flush(now=True)


def environment() -> dict[str, str]:
    """Returns this process's environment variables, with the folder of its Python on PATH: the `python` in a stage's
    command is then the same Python."""
    folder, path = str(Path(sys.executable).parent), os.environ.get("PATH", "")
    return os.environ | {
        "PATH": path if folder in path.split(os.pathsep) else f"{folder}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8:backslashreplace",  # the encoding that `run` reads, whatever the locale is
        "SHELL": shell(os.environ.get("SHELL", "")),
    }


@cache
def shell(path: str) -> str:
    """Returns the shell with which DVC runs a stage: `path` ($SHELL) if it runs commands, otherwise bash. The
    shell of a service account runs no commands.

    Without $SHELL, as in many containers, DVC would use /bin/sh. That shell stays between DVC and the stage, and when
    a run is stopped, it ends before the stage has saved its checkpoint. Bash replaces itself with the command.
    """
    with suppress(OSError, subprocess.TimeoutExpired):
        command = [path, "-c", f"exit {PROBE_EXIT_CODE}"]
        if path and subprocess.run(command, capture_output=True, timeout=5).returncode == PROBE_EXIT_CODE:  # noqa: S603
            return path
    return shutil.which("bash") or "/bin/sh"


def terminate(process: subprocess.Popen[str], signalled: set[int]) -> None:
    """Stops a `dvc repro` so that it releases its locks. This takes little more than GRACE_SECONDS.

    SIGTERM would end DVC and leave its entries in .dvc/tmp/rwlock. Therefore the stage's command gets SIGTERM, and DVC
    ends by itself as after any stage that failed. If DVC runs no command, SIGINT ends it cleanly. Each process gets
    only one signal, even if this function is called again, because a second signal would interrupt its clean-up:
    `signalled` holds the pids of the processes that have got one.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        commands = session_processes(process.pid)
        for child in commands:
            if child.pid not in signalled:
                with suppress(psutil.NoSuchProcess):
                    child.terminate()
        if not commands and not signalled:
            process.send_signal(signal.SIGINT)
            signalled.add(process.pid)
        signalled |= {child.pid for child in commands}
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1)
    for child in session_processes(process.pid):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    try:
        process.wait(timeout=1.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
