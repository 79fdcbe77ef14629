"""Where what one run leaves for the next lies, beside DVC's outputs: what is remembered, and checkpoints."""

import os
from pathlib import Path

EXPERIMENTS = (".dvc", "tmp", "exps")


def state_dir() -> Path:
    """$UNFREEZE_HOME, else the project's .unfreeze: also for an experiment of `--queue` or `--temp`, which DVC runs in
    a copy of the project that it throws away."""
    if named := os.environ.get("UNFREEZE_HOME"):
        return Path(named)
    for folder in Path.cwd().parents:
        if folder.parts[-3:] == EXPERIMENTS:
            return folder.parents[2] / ".unfreeze"
    return Path(".unfreeze")
