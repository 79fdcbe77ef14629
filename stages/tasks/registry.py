"""The available tasks. `task` in params.yaml or in a model file selects a task; all other code works with any task."""

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


def check_task_known(config_json: str, keys: Sequence[str], path: Path) -> None:
    """Checks the task at `keys` of `config_json`, the metadata of the model file at `path`.

    Raises StageError if the task is missing, or if this version does not know the task.
    """
    task_name: object = json.loads(config_json)
    for key in (*keys, "name"):
        task_name = task_name.get(key) if isinstance(task_name, dict) else None
    if not isinstance(task_name, str):
        raise StageError(f"{path} does not contain the name of its task, as files of this version do: train it again")
    if task_name not in TASKS:
        raise StageError(
            f"{path} is a model of the task `{task_name}`, and this version knows only {', '.join(TASKS)}: use the "
            "version of the program that trained the model, or train it again"
        )
