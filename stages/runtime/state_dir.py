"""The folder of state that one run leaves for the next, outside DVC's outputs: the item store and checkpoints."""

import os
from pathlib import Path

EXPERIMENTS = (".dvc", "tmp", "exps")


def state_dir() -> Path:
    """$UNFREEZE_HOME if set, else the project's .unfreeze; also for experiments with `--queue` or `--temp`, which DVC
    runs in a temporary copy of the project."""
    if named := os.environ.get("UNFREEZE_HOME"):
        return Path(named)
    for folder in Path.cwd().parents:
        if folder.parts[-3:] == EXPERIMENTS:
            return folder.parents[2] / ".unfreeze"
    return Path(".unfreeze")
