"""What makes a program a stage: errors in one line, outputs whole or not at all, a receipt, an end when asked to."""

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
from stages.runtime.errors import in_one_line
from stages.runtime.folders import run_name

Item = TypeVar("Item")
OPEN_MAX = 10240  # macOS: sys/syslimits.h


def run(main: Callable[[], None], with_receipt: bool = True, with_arguments: bool = False) -> None:
    """Run a stage's `main` and write its receipt. What a user can mend becomes one line on stderr and exit code 1.

    `with_arguments`: `main` reads the arguments of the command itself, and not `apply_arguments`.
    """
    gc.freeze()
    gc.enable()
    stage, main_started = Path(sys.argv[0]).stem, time.monotonic()
    signals.install_handlers()
    if isinstance(sys.stdout, TextIOWrapper):  # a label that the locale's encoding lacks ends no stage
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
        if (line := in_one_line(error, stage)) is None:
            raise
        sys.exit(f"{stage}: {line}")


def open_many_files() -> int:
    """Raise the limit of open files as far as the system lets us; returns it.

    Each shard and each segment of the item store keeps one open: the usual 1,024 are too few for a million pictures.
    macOS names an infinite limit and refuses it: the largest that it takes depends on the system, and is OPEN_MAX at
    least.
    """
    now, most = (int(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    if now == most:
        return now
    guesses = [1 << power for power in range(20, 13, -1)] + [OPEN_MAX] if most == resource.RLIM_INFINITY else []
    for limit in [most, *(guess for guess in guesses if guess > now)]:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
            return limit
    return now


def track(items: Iterable[Item], total: int, unit: str, done: int = 0) -> Iterator[Item]:
    """Progress bar with rate and time left on a terminal; silent where stderr is none (CI, logs). `done`: of `total`,
    before these. Raises Stopped between two items."""
    for item in tqdm(items, total=total, initial=done, unit=f" {unit}", disable=None, leave=False, smoothing=0.1):
        signals.check()
        yield item
    signals.check()
