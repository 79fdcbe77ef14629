"""Says whether the folder of pictures that a stage reads has changed: a cheap fingerprint, and DVC's hash of it."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import read_graph


def first_dependency(stage: str) -> Any:
    """Returns DVC's object for the stage's first dependency. The repository is opened anew, so that DVC reuses no hash
    from an earlier call."""
    return read_graph(open_repo(), [stage])[stage].dvc.deps[0]


def content_hash(stage: str) -> str:
    """Returns DVC's hash of the stage's first dependency as it is on the disk now."""
    return str(first_dependency(stage).get_hash().value)


def folder_fingerprint(folder: Path) -> str:
    """Returns a hash of the names, sizes and modification times of all files below the folder.

    Raises OSError if there is no such folder.
    """
    folder.stat()
    lines = list[str]()
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            with suppress(FileNotFoundError):  # a broken link, or a file that has just been removed
                stat = (Path(parent) / name).stat()
                lines.append(f"{parent}/{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()
