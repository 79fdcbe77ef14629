"""What augmented views of the head cost and gain: the stage `augment` with and without them, at equal epochs too.

A round is a fold, where the split has folds, in a clone of its own whose `train_head` has run.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.reruns import change, receipt, seconds
from bench.versus import ROOT, reached

VIEWS_AND_EPOCHS = ((0, 1), (0, 8), (4, 8))


def augment(folder: Path, changes: list[str]) -> float:
    """Seconds of the whole stage, its start-up included."""
    change(folder, [f"augment.{one}" for one in changes])
    seconds(folder, "dvc", "repro", "-q", "augment")
    return float(receipt(folder, "augment")["seconds"])


def turn(folder: Path, changes: list[str]) -> dict[str, dict[str, float]]:
    """One round: combination: seconds, seconds of a further run with another rate, accuracy, log loss."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    change(folder, [*changes, "augment.cycle_len=1"])
    seconds(folder, "dvc", "repro", "-q", "train_head")
    found: dict[str, dict[str, float]] = {}
    for views, epochs in VIEWS_AND_EPOCHS:
        took = augment(folder, [f"views={views}", f"n_cycles={epochs}", "lr=0.0003"])
        row = {"seconds": took, **reached(folder, "augment")}
        row["further_seconds"] = augment(folder, ["lr=0.0002"]) if views else took
        found[f"{views}, {epochs}"] = row
    return found


def views(rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """Our precision; of each combination what every round took and reached."""
    turns: list[dict[str, dict[str, float]]] = []
    for fold in range(rounds):
        with tempfile.TemporaryDirectory() as parent:
            clone = Path(parent) / "clone"
            turns.append(turn(clone, [f"split.cv_idx={fold}", *changes]))
            precision = str(receipt(clone, "augment")["precision"])
        print(turns[-1], flush=True)
    return precision, {
        name: {what: [round(one[name][what], 6) for one in turns] for what in row} for name, row in turns[0].items()
    }
