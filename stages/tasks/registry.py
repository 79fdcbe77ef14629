"""The available tasks. `task` in params.yaml and the task in a model file select one; other code does not ask which."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from stages.runtime.errors import StageError
from stages.tasks.single_label import SingleLabel

TaskName: Any = Literal["single_label"]
AnyTask = SingleLabel  # a union discriminated by `name` once there is a second task
TASKS: dict[str, type[AnyTask]] = {"single_label": SingleLabel}


def task_named(name: str) -> type[AnyTask]:
    return TASKS[name]


def check_known(about: str, keys: Sequence[str], path: Path) -> None:
    """Checks the task at `keys` of `about`, the JSON metadata of the model file at `path`.

    Raises StageError if it is missing or not known here."""
    value: object = json.loads(about)
    for key in (*keys, "name"):
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, str):
        raise StageError(f"{path} does not say what its task is: this version did not write it; train it anew")
    if value not in TASKS:
        raise StageError(
            f"{path} is a model of the task `{value}`, and this version knows {', '.join(TASKS)}: use it with the "
            "version that trained it, or train it anew"
        )
