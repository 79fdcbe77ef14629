"""dvc.lock files: stages' entries, handed from clone to clone, and the order in which `dvc repro` writes them.

Each dvc.yaml has its dvc.lock beside it. Entries are kept by the lock's path and the stage's name in it.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException

from flows.pipeline import dvc_adapter
from flows.pipeline.dvc_adapter import LOCK, PIPELINE, Repo
from flows.pipeline.graph import split_address

Entries = dict[str, dict[str, Any]]  # lock's path from the top folder: stage's name in it: its entry


def paths(repo: Repo) -> list[Path]:
    """Of all dvc.lock files that there are or could be: beside each dvc.yaml, also one that cannot be read."""
    root = Path(repo.root_dir)
    return [(root / file).with_name(LOCK) for file in dvc_adapter.pipeline_files(repo)]


def parse(text: str) -> dict[str, Any]:
    """Entries of a lock's text, for example of a commit's."""
    return dict(dvc_adapter.parse(text, LOCK).get("stages") or {})


def read(repo: Repo) -> Entries:
    """As plain dicts that JSON can carry. DVC writes these files in place: not while it does."""
    root = Path(repo.root_dir)
    files = paths(repo)
    with repo.lock:
        return {
            file.relative_to(root).as_posix(): dict(dvc_adapter.load(file).get("stages") or {})
            for file in files
            if file.exists()
        }


def place(stage: str) -> tuple[str, str]:
    """(path of the lock with the stage's entry, name of the entry) for a stage's address."""
    folder, name = split_address(stage)
    return (Path(folder) / LOCK).as_posix(), name


def entries_of(known: Entries, stages: Iterable[str]) -> Entries:
    """The entries of these stages, as far as there are any."""
    chosen = Entries()
    for lock, name in map(place, stages):
        if name in known.get(lock, {}):
            chosen.setdefault(lock, {})[name] = known[lock][name]
    return chosen


def outputs(repo: Repo) -> list[str]:
    """Paths that stages write, those that git holds among them. By the locks: a dvc.yaml may be broken at this commit,
    and is asked for the folders alone in which its stages work."""
    found = list[str]()
    for lock, entries in read(repo).items():
        folder = Path(lock).parent
        try:
            stages = dvc_adapter.load(Path(repo.root_dir) / folder / PIPELINE).get("stages") or {}
        except (DvcException, OSError):
            stages = {}
        for name, entry in entries.items():
            work = (stages.get(name.partition("@")[0]) or {}).get("wdir", ".")
            found += [os.path.normpath(folder / work / out["path"]) for out in entry.get("outs", [])]
    return found


def merge(repo: Repo, new: Mapping[str, Mapping[str, Any]]) -> None:
    """Enter stages' entries; the others stay as they are. `repo` is the caller's alone, as its lock is."""
    for lock, entries in new.items():
        if entries:
            with repo.lock, dvc_adapter.edit(Path(repo.root_dir) / lock) as content:
                content.setdefault("schema", "2.0")
                content.setdefault("stages", {}).update(entries)


def put_in_order(repo: Repo, order: Iterable[str], before: Mapping[str, Iterable[str]]) -> None:
    """Entries made since the locks held `before` get the order of `dvc repro`, whichever stage ended first."""
    names_of: dict[str, list[str]] = {}
    for lock, name in map(place, order):
        names_of.setdefault(lock, []).append(name)
    for lock, order_here in names_of.items():
        path = Path(repo.root_dir) / lock
        if not path.exists():
            continue
        old = list(before.get(lock, ()))
        with repo.lock, dvc_adapter.edit(path) as content:
            made = content.get("stages", {})
            new = [name for name in order_here if name in made and name not in old]
            names = [name for name in old if name in made] + new
            content["stages"] = {name: made[name] for name in [*names, *(name for name in made if name not in names)]}
