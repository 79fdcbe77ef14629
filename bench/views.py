"""Measures the cost and the benefit of augmented views: the stage `augment` with views, and without views for one epoch
and for as many epochs.

Each round has a new clone whose `train_head` has run. If the split has folds, each round is a fold.
"""

import subprocess
import tempfile
from pathlib import Path
from typing import Any

from bench.reruns import change, receipt, seconds
from bench.versus import ROOT, final_metrics

VIEWS_AND_EPOCHS = ((0, 1), (0, 8), (4, 8))


def run_augment(folder: Path, changes: list[str]) -> float:
    """Runs the stage and returns its seconds, including its start-up."""
    change(folder, [f"augment.{text}" for text in changes])
    seconds(folder, "dvc", "repro", "-q", "augment")
    return float(receipt(folder, "augment")["seconds"])


def measure_round(folder: Path, changes: list[str]) -> dict[str, dict[str, float]]:
    """Measures one round. Returns for each combination of views and epochs the seconds, the seconds of a further run
    with another rate, the accuracy and the log loss."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    change(folder, [*changes, "augment.cycle_len=1"])
    seconds(folder, "dvc", "repro", "-q", "train_head")
    found: dict[str, dict[str, float]] = {}
    for views, epochs in VIEWS_AND_EPOCHS:
        took = run_augment(folder, [f"views={views}", f"n_cycles={epochs}", "lr=0.0003"])
        row = {"seconds": took, **final_metrics(folder, "augment")}
        row["further_seconds"] = run_augment(folder, ["lr=0.0002"]) if views else took
        found[f"{views}, {epochs}"] = row
    return found


def views(rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """Returns the precision, and for each combination the figures of every round."""
    measured_rounds: list[dict[str, dict[str, float]]] = []
    for fold in range(rounds):
        with tempfile.TemporaryDirectory() as parent:
            clone = Path(parent) / "clone"
            measured_rounds.append(measure_round(clone, [f"split.cv_idx={fold}", *changes]))
            precision = str(receipt(clone, "augment")["precision"])
        print(measured_rounds[-1], flush=True)
    return precision, {
        name: {what: [round(one[name][what], 6) for one in measured_rounds] for what in row}
        for name, row in measured_rounds[0].items()
    }
