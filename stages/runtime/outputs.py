"""Outputs appear whole or not at all: written under another name, brought to the disk, then renamed."""

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
    """Yield an empty folder to write to; what lies in it replaces its namesakes in `folder` when the block ends well.

    A stage that fails leaves nothing half-written, and one that is killed nothing that the next would take for its own.
    DVC's own files in `folder` (.gitignore) stay.
    """
    remove_those_of_the_dead(folder)
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
def whole_file(path: Path) -> Iterator[Path]:
    """Yield the name of a file to write, in a folder beside `path`, which it replaces when the block ends well."""
    remove_those_of_the_dead(path)
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
    """A folder cannot be replaced by a folder: the old one goes aside, into what is removed at the end."""
    for number, new in enumerate(sorted(staging.iterdir())):
        old = folder / new.name
        if old.is_dir():
            old.replace(staging / f".old.{number}")
        new.replace(old)
    sync(folder)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Against another run of the same stage that ends at this very moment."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    finally:
        os.close(file)


def remove_those_of_the_dead(folder: Path) -> None:
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
    """To the disk: a rename that outlives a crash must not name a file that does not."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
