"""Reads and writes dvc.lock files: it copies stages' entries between clones, in the order in which `dvc repro` writes.

Each dvc.yaml has a dvc.lock in the same folder.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException

from flows.pipeline import dvc_adapter
from flows.pipeline.dvc_adapter import LOCK, PIPELINE, Repo
from flows.pipeline.graph import split_address

# for each dvc.lock (its path from the top folder) the entries by the stage's name in that file
Entries = dict[str, dict[str, Any]]


def paths(repo: Repo) -> list[Path]:
    """Returns the path of a dvc.lock for each dvc.yaml. The dvc.lock may not exist; the dvc.yaml may be unreadable."""
    root = Path(repo.root_dir)
    return [(root / file).with_name(LOCK) for file in dvc_adapter.pipeline_files(repo)]


def parse(text: str) -> dict[str, Any]:
    """Returns the entries in the text of a dvc.lock, for example of another commit."""
    return dict(dvc_adapter.parse(text, LOCK).get("stages") or {})


def read(repo: Repo) -> Entries:
    """Returns all entries as plain dicts that can become JSON. It holds DVC's lock, because DVC writes these files in
    place."""
    root = Path(repo.root_dir)
    files = paths(repo)
    with repo.lock:
        return {
            file.relative_to(root).as_posix(): dict(dvc_adapter.load(file).get("stages") or {})
            for file in files
            if file.exists()
        }


def position(stage: str) -> tuple[str, str]:
    """Returns for a stage's address the path of the dvc.lock with its entry, and the name of the entry."""
    folder, name = split_address(stage)
    return (Path(folder) / LOCK).as_posix(), name


def entries_of(all_entries: Entries, stages: Iterable[str]) -> Entries:
    """Returns the entries of those of these stages that have one."""
    chosen = Entries()
    for lock, name in map(position, stages):
        if name in all_entries.get(lock, {}):
            chosen.setdefault(lock, {})[name] = all_entries[lock][name]
    return chosen


def outputs(repo: Repo) -> list[str]:
    """Returns the paths that stages write, including those that git tracks.

    They are read from the dvc.lock files, because a dvc.yaml may be broken at this commit. Only the stages' working
    directories are read from dvc.yaml, if it can be read.
    """
    paths = list[str]()
    for lock, entries in read(repo).items():
        folder = Path(lock).parent
        try:
            stages = dvc_adapter.load(Path(repo.root_dir) / folder / PIPELINE).get("stages") or {}
        except (DvcException, OSError):
            stages = {}
        for name, entry in entries.items():
            wdir = (stages.get(name.partition("@")[0]) or {}).get("wdir", ".")
            paths += [os.path.normpath(folder / wdir / out["path"]) for out in entry.get("outs", [])]
    return paths


def merge(repo: Repo, new: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes the new entries and leaves all other entries as they are.

    No other thread may use `repo`, because threads that share it also share its lock.
    """
    for lock, entries in new.items():
        if entries:
            with repo.lock, dvc_adapter.edit(Path(repo.root_dir) / lock) as content:
                content.setdefault("schema", "2.0")
                content.setdefault("stages", {}).update(entries)


def sort_new_entries(repo: Repo, stages: Iterable[str], old_entries: Mapping[str, Iterable[str]]) -> None:
    """Sorts the entries that are not in `old_entries` as `dvc repro` does, whichever stage ended first.

    `stages`: all addresses in the order of `dvc repro`.
    """
    names_of: dict[str, list[str]] = {}
    for lock, name in map(position, stages):
        names_of.setdefault(lock, []).append(name)
    for lock, sorted_names in names_of.items():
        path = Path(repo.root_dir) / lock
        if not path.exists():
            continue
        old = list(old_entries.get(lock, ()))
        with repo.lock, dvc_adapter.edit(path) as content:
            entries = content.get("stages", {})
            new = [name for name in sorted_names if name in entries and name not in old]
            names = [name for name in old if name in entries] + new
            names += [name for name in entries if name not in names]
            content["stages"] = {name: entries[name] for name in names}
