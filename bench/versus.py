"""Compares the recipe with fastai 2: same pictures, split, weights and size, in turns, in a new clone for each round.

For the head, this project's time is that of a real `dvc repro` from raw pictures and empty caches, including every
start-up. For full training and TTA it is the time of the stage without its imports. fastai's time is that of its epoch
alone, without its imports and without reading the table. If the split has folds, each round is a fold.
"""

import json
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from bench.reruns import change, ingest_path, receipt, seconds

ROOT = Path(__file__).parents[1]
SIZE_PX = 224
SAME_SIZE = [f"precompute.size_px={SIZE_PX}", f"unfreeze.size_px={SIZE_PX}", f"train_full.size_px={SIZE_PX}"]
ONE_EPOCH = ["train_full.cycle_len=1", "train_full.label_smoothing=0"]
# The range of fastai's slice(1e-5, 1e-3) for this project's three layer groups. fastai has two groups for this network.
FASTAI_RATES = ["train_full.lrs=[0.00001, 0.0001, 0.001]"]


def fastai(python: str, project: Path) -> dict[str, dict[str, float]]:
    command = [python, str(ROOT / "bench/fastai_side.py"), str(project), str(SIZE_PX), ingest_path(project)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    found: dict[str, dict[str, float]] = json.loads(output.splitlines()[-1])
    return found


def work_seconds(project: Path, stage: str) -> dict[str, float]:
    found = receipt(project, stage)
    return {"seconds": float(found["seconds"] - found["startup_seconds"])}


def repro(project: Path, stage: str) -> dict[str, float]:
    return {"seconds": seconds(project, "dvc", "repro", "-q", stage)}


def final_metrics(project: Path, stage: str) -> dict[str, float]:
    """Returns accuracy and log loss of the weights that the stage kept."""
    table = pd.read_csv(project / f"data/{stage}/history.csv")
    row = (table[table["kept"] == 1] if "kept" in table else table).iloc[-1]
    return {"accuracy": float(row["accuracy"]), "log_loss": float(row["valid_loss"])}


def measure_round(folder: Path, python: str, changes: list[str]) -> dict[str, Any]:
    """Measures one round. Returns for each step and each side the seconds, accuracy and log loss."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    change(folder, [*SAME_SIZE, *ONE_EPOCH, *FASTAI_RATES, *changes])
    ours = {"head": repro(folder, "train_head") | final_metrics(folder, "train_head")}
    change(folder, ["train_head.lr=0.002"])
    ours["second head"] = repro(folder, "train_head") | final_metrics(folder, "train_head")
    repro(folder, "evaluate")
    metrics = json.loads((folder / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    ours["full"] = work_seconds(folder, "train_full") | final_metrics(folder, "train_full")
    ours["tta"] = work_seconds(folder, "tta") | {name: metrics[f"{name}_tta"] for name in ("accuracy", "log_loss")}
    theirs = fastai(python, folder)
    theirs["second head"] = theirs["head"]
    return {step: {"ours": ours[step], "fastai": theirs[step]} for step in ours}


def versus(python: str, rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """Returns this project's precision. Also returns for each step the ratios of fastai's seconds to this project's,
    and the seconds, accuracy and log loss of both sides in each round."""
    measured_rounds: list[dict[str, Any]] = []
    for fold in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "clone"
            measured_rounds.append(measure_round(clone, python, [f"split.cv_idx={fold}", *changes]))
            precision = str(receipt(clone, "train_full")["precision"])
        print(json.dumps(measured_rounds[-1]), flush=True)
    found: dict[str, Any] = {}
    for step, sides in measured_rounds[0].items():
        ratios = [one[step]["fastai"]["seconds"] / one[step]["ours"]["seconds"] for one in measured_rounds]
        found[step] = {"median": round(statistics.median(ratios), 2), "ratios": [round(ratio, 2) for ratio in ratios]}
        for side, figures in sides.items():
            found[step][side] = {what: [round(one[step][side][what], 6) for one in measured_rounds] for what in figures}
    return precision, found
