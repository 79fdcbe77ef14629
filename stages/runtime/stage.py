"""Runs a stage as a program: one-line errors, graceful stop, a receipt (run record), progress bars."""

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from stages.runtime import receipt, signals
from stages.runtime.arguments import apply_arguments
from stages.runtime.errors import user_message
from stages.runtime.folders import run_name

Item = TypeVar("Item")
OPEN_MAX = 10240  # macOS: sys/syslimits.h


def run(main: Callable[[], None], with_receipt: bool = True, with_arguments: bool = False) -> None:
    """Runs a stage's `main` and writes its receipt. An error that the user can fix becomes one line and exit code 1.

    `with_arguments`: `main` parses the command's arguments itself, instead of `apply_arguments`.
    """
    gc.freeze()
    gc.enable()
    stage, main_started = Path(sys.argv[0]).stem, time.monotonic()
    signals.install_handlers()
    if isinstance(sys.stdout, TextIOWrapper):  # printing a label must not fail in a locale without its letters
        sys.stdout.reconfigure(errors="backslashreplace")
    open_many_files()
    try:
        if not with_arguments:
            apply_arguments(sys.argv[1:], sys.modules["__main__"].__doc__)
        main()
        if with_receipt:
            receipt.write(os.environ.get("DVC_STAGE", run_name(stage)), main_started)
    except signals.Stopped:
        print(f"{stage}: stopped before its end: run it again", file=sys.stderr)
        sys.exit(signals.EXIT_CODE)
    except KeyboardInterrupt:  # Ctrl-C for the second time
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        if (line := user_message(error, stage)) is None:
            raise
        sys.exit(f"{stage}: {line}")


def open_many_files() -> int:
    """Raises the limit of open files as far as the system allows. Returns the new limit.

    Each shard and each segment of the item store is an open file: the usual 1,024 are too few for a million pictures.
    macOS reports an infinite limit but does not accept it: the largest accepted value depends on the system, and is at
    least OPEN_MAX.
    """
    current, maximum = (int(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if current == maximum:
        return current
    guesses = [1 << power for power in range(20, 13, -1)] + [OPEN_MAX] if maximum == resource.RLIM_INFINITY else []
    for limit in [maximum, *(guess for guess in guesses if guess > current)]:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, maximum))
            return limit
    return current


def track(items: Iterable[Item], total: int, unit: str, done: int = 0) -> Iterator[Item]:
    """Yields the items with a progress bar, which is hidden if stderr is not a terminal (CI, logs).

    `done`: how many of the `total` items were done before. Raises Stopped between two items.
    """
    for item in tqdm(items, total=total, initial=done, unit=f" {unit}", disable=None, leave=False, smoothing=0.1):
        signals.check()
        yield item
    signals.check()
