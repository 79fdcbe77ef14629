"""What makes a program a stage: errors in one line, outputs whole or not at all, remembered seconds."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")


class StageError(Exception):
    """Speaks to the person who must act: what was found, where, what was expected, what to do next."""


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a StageError becomes one line on stderr and exit code 1."""
    stage = Path(sys.argv[0]).stem
    try:
        main()
    except StageError as error:
        sys.exit(f"{stage}: {' '.join(str(error).split())}")
    except FileNotFoundError as error:
        if not str(error.filename).startswith("data/"):
            raise
        sys.exit(
            f"{stage}: no {error.filename}, which another stage makes: run `dvc repro {stage}`, which runs that first"
        )


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


def _seconds_file(result: Path) -> Path:
    home = Path(os.environ.get("UNFREEZE_HOME", ".unfreeze"))
    return home / "seconds" / f"{hashlib.sha256(result.read_bytes()).hexdigest()}.json"


def remember_seconds(result: Path, seconds: dict[str, float]) -> None:
    """Remember how long the parts of a stage took to make the file `result`, if these bytes are new here.

    Seconds differ at every run, so they must not stand in an output that a later stage depends on. Kept by the
    content of the result they survive a forced rerun: the same result reports the time that it first cost.
    """
    note = _seconds_file(result)
    if not note.exists():
        note.parent.mkdir(parents=True, exist_ok=True)
        whole = note.with_suffix(f".{os.getpid()}.tmp")
        whole.write_text(json.dumps({part: round(value, 1) for part, value in seconds.items()}))
        whole.replace(note)


def remembered_seconds(result: Path) -> dict[str, float]:
    """What `remember_seconds` kept for these bytes; empty where another machine made them."""
    note = _seconds_file(result)
    return dict(json.loads(note.read_text())) if note.exists() else {}
