"""Atomic outputs: files are written under a temporary name, synced to disk, then renamed."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stages.runtime import signals


@contextmanager
def outputs(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to write to. If the block succeeds, its files replace files of the same name in `folder`.

    A stage that fails leaves nothing half-written; a stage that is killed leaves nothing that the next run would take
    for an output. Other files in `folder`, such as DVC's .gitignore, stay.
    """
    remove_abandoned(folder)
    staging = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    staging.mkdir(parents=True)
    try:
        yield staging
        for below, _, names in os.walk(staging):
            for name in names:
                sync(Path(below, name))
            sync(Path(below))
        folder.mkdir(parents=True, exist_ok=True)
        signals.check()
        with lock_folder(folder):
            move_outputs(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a path in a temporary folder to write to. If the block succeeds, that file replaces `path`."""
    remove_abandoned(path)
    staging = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    staging.mkdir(parents=True)
    try:
        yield staging / path.name
        signals.check()
        sync(staging / path.name)
        (staging / path.name).replace(path)
        sync(path.parent)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def move_outputs(staging: Path, folder: Path) -> None:
    """Moves new outputs into `folder`. A rename cannot replace a folder, so old folders first move into `staging`."""
    for number, new in enumerate(sorted(staging.iterdir())):
        old = folder / new.name
        if old.is_dir():
            old.replace(staging / f".old.{number}")
        new.replace(old)
    sync(folder)


@contextmanager
def lock_folder(folder: Path) -> Iterator[None]:
    """Locks `folder` against another run of the same stage that ends at the same moment."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def remove_abandoned(folder: Path) -> None:
    """Removes the temporary folders of `folder` whose processes no longer run."""
    for staging in folder.parent.glob(f".{folder.name}.*.tmp"):
        match = re.fullmatch(r"\.(\d+)\.tmp", staging.name.removeprefix(f".{folder.name}"))
        if match is None:
            continue
        pid = int(match[1])
        try:
            os.kill(pid, 0)  # sends no signal, only checks that the process exists
            is_running = pid != os.getpid()  # an earlier process with the same number left the folder
        except ProcessLookupError:
            is_running = False
        except PermissionError:  # a process of another user
            is_running = True
        if not is_running:
            shutil.rmtree(staging, ignore_errors=True)


def sync(path: Path) -> None:
    """Flushes a file or folder to disk. Must precede a rename, or a crash may leave the new name without contents."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
