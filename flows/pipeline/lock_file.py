"""dvc.lock: one stage's entry, handed from clone to clone, and the order in which plain `dvc repro` writes them."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.utils.serialize import load_yaml, modify_yaml, parse_yaml

from flows.pipeline.graph import PIPELINE

LOCK = "dvc.lock"


def parse(text: str) -> dict[str, Any]:
    """Entries of a lock's text, of a commit's say."""
    return dict((parse_yaml(text, LOCK) or {}).get("stages", {}))


def entries(repo: Repo) -> dict[str, Any]:
    """The lock's entries by stage, as plain dicts that JSON can carry. DVC writes in place: not while it does."""
    path = Path(repo.root_dir) / LOCK
    with repo.lock:
        return dict(load_yaml(str(path)).get("stages", {})) if path.exists() else {}


def outputs(repo: Repo) -> list[str]:
    """Paths that stages write, those that git holds among them. By dvc.lock: dvc.yaml may be broken at this commit, and
    is asked for the folders alone in which its stages work."""
    try:
        stages = dict(load_yaml(str(Path(repo.root_dir) / PIPELINE)).get("stages", {}))
    except (DvcException, OSError):
        stages = {}
    return [
        os.path.normpath(Path((stages.get(name.partition("@")[0]) or {}).get("wdir", "."), out["path"]))
        for name, entry in entries(repo).items()
        for out in entry.get("outs", [])
    ]


def merge(repo: Repo, new: dict[str, Any]) -> None:
    """Enter stages' entries; the others stay as they are. `repo` is the caller's alone, as its lock is."""
    if not new:
        return
    with repo.lock, modify_yaml(str(Path(repo.root_dir) / LOCK)) as lock:
        lock.setdefault("schema", "2.0")
        lock.setdefault("stages", {}).update(new)


def in_order(repo: Repo, order: Iterable[str], before: Iterable[str]) -> None:
    """Entries made since the lock held `before` get the order of `dvc repro`, whichever stage ended first."""
    if not (Path(repo.root_dir) / LOCK).exists():
        return
    old = list(before)
    with repo.lock, modify_yaml(str(Path(repo.root_dir) / LOCK)) as lock:
        made = lock.get("stages", {})
        rest = [name for name in order if name in made and name not in old]
        names = [name for name in old if name in made] + rest
        lock["stages"] = {name: made[name] for name in [*names, *(name for name in made if name not in names)]}
