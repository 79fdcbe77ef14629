"""The recipe against fastai 2: same pictures, split, weights and size, in turns, each from a clone of its own.

For the head ours is real `dvc repro` from raw pictures and empty caches, every start-up included, for full training and
TTA the stage without its imports; fastai's is its epoch alone, without its imports and its reading of the table.
A round is a fold, where the split has folds.
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
# The span of its slice(1e-5, 1e-3), in our three groups: it has two for this network.
FASTAI_RATES = ["train_full.lrs=[0.00001, 0.0001, 0.001]"]


def fastai(python: str, project: Path) -> dict[str, dict[str, float]]:
    command = [python, str(ROOT / "bench/fastai_side.py"), str(project), str(SIZE_PX), ingest_path(project)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
    found: dict[str, dict[str, float]] = json.loads(said.splitlines()[-1])
    return found


def work(project: Path, stage: str) -> dict[str, float]:
    found = receipt(project, stage)
    return {"seconds": float(found["seconds"] - found["startup_seconds"])}


def repro(project: Path, stage: str) -> dict[str, float]:
    return {"seconds": seconds(project, "dvc", "repro", "-q", stage)}


def reached(project: Path, stage: str) -> dict[str, float]:
    """By the weights that the stage kept."""
    table = pd.read_csv(project / f"data/{stage}/history.csv")
    row = (table[table["kept"] == 1] if "kept" in table else table).iloc[-1]
    return {"accuracy": float(row["accuracy"]), "log_loss": float(row["valid_loss"])}


def turn(folder: Path, python: str, changes: list[str]) -> dict[str, Any]:
    """One round: step: side: seconds, accuracy, log loss."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    change(folder, [*SAME_SIZE, *ONE_EPOCH, *FASTAI_RATES, *changes])
    ours = {"head": repro(folder, "train_head") | reached(folder, "train_head")}
    change(folder, ["train_head.lr=0.002"])
    ours["second head"] = repro(folder, "train_head") | reached(folder, "train_head")
    repro(folder, "evaluate")
    metrics = json.loads((folder / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    ours["full"] = work(folder, "train_full") | reached(folder, "train_full")
    ours["tta"] = work(folder, "tta") | {name: metrics[f"{name}_tta"] for name in ("accuracy", "log_loss")}
    theirs = fastai(python, folder)
    theirs["second head"] = theirs["head"]
    return {step: {"ours": ours[step], "fastai": theirs[step]} for step in ours}


def versus(python: str, rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """Our precision; of each step fastai's seconds / ours, and what both sides took and reached in each round."""
    turns: list[dict[str, Any]] = []
    for fold in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "clone"
            turns.append(turn(clone, python, [f"split.cv_idx={fold}", *changes]))
            precision = str(receipt(clone, "train_full")["precision"])
        print(json.dumps(turns[-1]), flush=True)
    found: dict[str, Any] = {}
    for step, sides in turns[0].items():
        ratios = [one[step]["fastai"]["seconds"] / one[step]["ours"]["seconds"] for one in turns]
        found[step] = {"median": round(statistics.median(ratios), 2), "ratios": [round(ratio, 2) for ratio in ratios]}
        for side, figures in sides.items():
            found[step][side] = {what: [round(one[step][side][what], 6) for one in turns] for what in figures}
    return precision, found
