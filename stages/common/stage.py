"""What makes a program a stage: errors in one line, outputs whole or not at all, a receipt."""

import gc
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from stages.common import receipt

Item = TypeVar("Item")
LONGEST_LINE = 2000


class StageError(Exception):
    """Speaks to the person who must act: what was found, where, what was expected, what to do next."""


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main` and write its receipt; a StageError becomes one line on stderr and exit code 1."""
    gc.freeze()
    gc.enable()
    stage, main_started = Path(sys.argv[0]).stem, time.monotonic()
    try:
        main()
        receipt.write(os.environ.get("DVC_STAGE", stage).rpartition(":")[2], main_started)
    except StageError as error:
        sys.exit(f"{stage}: {one_line(error)}")
    except FileNotFoundError as error:
        # pyarrow, safetensors and pandas tell the name in the text alone
        if not (name := re.search(r"data/[\w./-]*\w", f"{error.filename} {error}")):
            raise
        sys.exit(f"{stage}: no {name[0]}, which another stage makes: run `dvc repro {stage}`, which runs that first")


def one_line(error: Exception) -> str:
    """What it says, fit for a terminal: file names and labels may hold what it would obey, or megabytes."""
    line = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(str(error).split()))
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def track(items: Iterable[Item], total: int, unit: str) -> Iterator[Item]:
    """Progress bar with rate and time left on a terminal; silent where stderr is none (CI, logs)."""
    yield from tqdm(items, total=total, unit=f" {unit}", disable=None, leave=False, smoothing=0.1)


@contextmanager
def outputs(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to write to; what lies in it replaces its namesakes in `folder` when the block ends well.

    A stage that fails leaves nothing half-written. DVC's own files in `folder` (.gitignore) stay.
    """
    staging = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        folder.mkdir(parents=True, exist_ok=True)
        for new in sorted(staging.iterdir()):
            old = folder / new.name
            if old.is_dir():
                shutil.rmtree(old)
            new.replace(old)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
