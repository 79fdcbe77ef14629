"""The recipe against fastai 2: same pictures, split, weights and size, in turns, each from a clone of its own.

For the head ours is real `dvc repro` from raw pictures and empty caches, every start-up included, for full training and
TTA the stage without its imports; fastai's is its epoch alone, without its imports and its reading of the table.
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
FASTAI_RATES = ["train_full.lrs=[0.00001, 0.0001, 0.001]"]  # its slice(1e-5, 1e-3) over three groups


def fastai(python: str, project: Path, what: str) -> dict[str, float]:
    command = [python, str(ROOT / "bench/fastai_side.py"), str(project), str(SIZE_PX), what, ingest_path(project)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return found


def work_seconds(project: Path, stage: str) -> float:
    found = receipt(project / ".unfreeze", stage)
    return float(found["seconds"] - found["startup_seconds"])


def reached(project: Path, stage: str) -> dict[str, float]:
    """Of the weights that the stage kept."""
    table = pd.read_csv(project / f"data/{stage}/history.csv")
    row = (table[table["kept"] == 1] if "kept" in table else table).iloc[-1]
    return {"accuracy": float(row["accuracy"]), "log_loss": float(row["valid_loss"])}


def turn(folder: Path, python: str, changes: list[str]) -> dict[str, Any]:
    """One round. Seconds of both sides and what they reached."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    change(folder, [*SAME_SIZE, *ONE_EPOCH, *FASTAI_RATES, *changes])
    found: dict[str, Any] = {"head": {"ours": seconds(folder, "dvc", "repro", "-q", "train_head")}}
    found["head"] |= {"reached": reached(folder, "train_head"), "fastai": fastai(python, folder, "head")}
    change(folder, ["train_head.lr=0.002"])
    found["second head"] = {"ours": seconds(folder, "dvc", "repro", "-q", "train_head")}
    found["second head"] |= {"reached": reached(folder, "train_head"), "fastai": found["head"]["fastai"]}
    seconds(folder, "dvc", "repro", "-q", "tta")
    found["full"] = {"ours": work_seconds(folder, "train_full"), "reached": reached(folder, "train_full")}
    found["full"]["fastai"] = fastai(python, folder, "full")
    found["tta"] = {"ours": work_seconds(folder, "tta"), "fastai": fastai(python, folder, "tta")}
    return found


def versus(python: str, rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """Our precision; fastai's seconds / ours: medians and every round, and what each side reached."""
    turns: list[dict[str, Any]] = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            turns.append(turn(Path(folder) / "clone", python, changes))
            precision = str(receipt(Path(folder) / "clone/.unfreeze", "train_full")["precision"])
        print(json.dumps(turns[-1]), flush=True)
    ratios = {what: [one[what]["fastai"]["seconds"] / one[what]["ours"] for one in turns] for what in turns[0]}
    return precision, {
        what: {"median": round(statistics.median(some), 2), "ratios": [round(ratio, 2) for ratio in some]}
        | {side: turns[-1][what].get(side) for side in ("ours", "reached", "fastai")}
        for what, some in ratios.items()
    }
