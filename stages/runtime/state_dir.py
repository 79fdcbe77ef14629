"""The folder of state that one run leaves for the next, outside DVC's outputs: the item store and checkpoints."""

import os
from pathlib import Path

EXPERIMENTS = (".dvc", "tmp", "exps")


def state_dir() -> Path:
    """Returns $UNFREEZE_HOME if set, else the project's .unfreeze.

    Experiments with `--queue` or `--temp`, which DVC runs in a temporary copy of the project, use the .unfreeze of the
    project itself.
    """
    if home := os.environ.get("UNFREEZE_HOME"):
        return Path(home)
    for folder in Path.cwd().parents:
        if folder.parts[-3:] == EXPERIMENTS:
            return folder.parents[2] / ".unfreeze"
    return Path(".unfreeze")
