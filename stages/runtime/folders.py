"""Decides where the folders of a run lie. No other module does.

A stage owns the folder `<root>/<stage>`. The root is `data`, unless the command sets another:

    python -m stages.train_head --root data/folds/1 --shared precompute split.cv_idx=1

runs the stage train_head of another run, whose folders lie in data/folds/1. The stages named after `--shared`
(comma-separated) use their folders in `data`, so that two runs share what does not differ between them.
"""

from dataclasses import dataclass
from pathlib import Path

MAIN_ROOT = Path("data")


@dataclass
class Run:
    """`shared`: stages whose folders are those of the main pipeline."""

    root: Path = MAIN_ROOT
    shared: frozenset[str] = frozenset()


_run = Run()


def set_run(root: Path, shared: frozenset[str]) -> None:
    _run.root, _run.shared = root, shared


def stage_folder(stage: str) -> Path:
    """Returns the folder of a stage's outputs, relative to the top folder of the project."""
    return (MAIN_ROOT if stage in _run.shared else _run.root) / stage


def in_this_run(path: str) -> Path:
    """Maps a path below the main root, as in dvc.yaml, to this run's folder; returns any other path unchanged."""
    parts = Path(path).parts
    if len(parts) < 2 or Path(parts[0]) != MAIN_ROOT:
        return Path(path)
    return stage_folder(parts[1]).joinpath(*parts[2:])


def run_name(stage: str) -> str:
    """Returns the stage's name, after the root if the root is not `data`: for example `data/folds/1/train_head`."""
    return stage if _run.root == MAIN_ROOT else (_run.root / stage).as_posix()
