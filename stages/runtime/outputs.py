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
    """Yield an empty folder to write to; if the block succeeds, its files replace those of the same name in `folder`.

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
        with locked(folder):
            put_in_place(staging, folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to, in a temporary folder; if the block succeeds, that file replaces `path`."""
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


def put_in_place(staging: Path, folder: Path) -> None:
    """Move new outputs into `folder`. A rename cannot replace a folder: the old one first goes into `staging`."""
    for number, new in enumerate(sorted(staging.iterdir())):
        old = folder / new.name
        if old.is_dir():
            old.replace(staging / f".old.{number}")
        new.replace(old)
    sync(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock `folder` against another run of the same stage that ends at the same moment."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def remove_abandoned(folder: Path) -> None:
    """Remove temporary folders of processes that are no longer alive."""
    for staging in folder.parent.glob(f".{folder.name}.*.tmp"):
        pid = re.fullmatch(r"\.(\d+)\.tmp", staging.name.removeprefix(f".{folder.name}"))
        if pid and not is_alive(int(pid[1])):
            shutil.rmtree(staging, ignore_errors=True)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return pid != os.getpid()


def sync(path: Path) -> None:
    """Flush to disk before a rename: otherwise after a crash the new name may exist without the contents."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
