"""Which tasks there are: chosen by `task` in params.yaml, and by what a model file carries. Else nobody asks which."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from stages.runtime.errors import StageError
from stages.tasks.single_label import SingleLabel

TaskName: Any = Literal["single_label"]
AnyTask = SingleLabel  # with a second one a union, told apart by `name`
TASKS: dict[str, type[AnyTask]] = {"single_label": SingleLabel}


def task_named(name: str) -> type[AnyTask]:
    return TASKS[name]


def check_known(about: str, keys: Sequence[str], path: Path) -> None:
    """`about`: what the model file at `path` says of itself, JSON, with its task at `keys`.

    Raises StageError: it says none, or one that is not known here."""
    found: object = json.loads(about)
    for key in (*keys, "name"):
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, str):
        raise StageError(f"{path} does not say what its task is: this version did not write it; train it anew")
    if found not in TASKS:
        raise StageError(
            f"{path} is a model of the task `{found}`, and this version knows {', '.join(TASKS)}: use it with the "
            "version that trained it, or train it anew"
        )
