"""Trains with fastai 2, in an environment of its own, with the pictures, split, weights and size of a project whose
`precompute` and `train_head` have run.

Usage: PYTHON bench/fastai_side.py PROJECT SIZE_PX INGEST_PATH. It prints one line of JSON with the seconds, accuracy
and log loss of each step. It uses fastai's defaults: vision_learner, aug_transforms, one epoch of the head with
fit_one_cycle, one epoch of all layers as in fine_tune, and tta. It uses no worker processes, because they are slower on
two cores.
"""

import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    ImageBlock,
    Normalize,
    Resize,
    aug_transforms,
    set_seed,
    vision_learner,
)  # fmt: skip
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, log_loss


def main() -> None:
    warnings.simplefilter("ignore")
    project, size_px = Path(sys.argv[1]), int(sys.argv[2])
    backbone = json.loads((project / "data/backbone/backbone.json").read_text(encoding="utf-8"))
    root = project / sys.argv[3]
    files = pd.read_parquet(project / "data/ingest/files.parquet").set_index("sha256")["file"]
    parts = [pd.read_csv(project / f"data/split/{part}.csv", dtype=str) for part in ("train", "valid")]
    table = pd.concat([part.assign(is_valid=bool(i)) for i, part in enumerate(parts)], ignore_index=True)
    table["path"] = [str(root / files[sha]) for sha in table["sha256"]]
    set_seed(42, reproducible=True)
    block = DataBlock(
        blocks=(ImageBlock, CategoryBlock),
        get_x=ColReader("path"),
        get_y=ColReader("label"),
        splitter=ColSplitter(),
        item_tfms=Resize(size_px),
        batch_tfms=[*aug_transforms(), Normalize.from_stats(backbone["mean"], backbone["std"])],
    )
    loaders = block.dataloaders(table, bs=64, num_workers=0)
    learn: Any = vision_learner(loaders, backbone["name"], pretrained=False, normalize=False)
    learn.model[0].model.load_state_dict(load_file(project / "data/backbone/weights.safetensors"), strict=False)
    learn.freeze()
    steps: dict[str, dict[str, float]] = {}
    with learn.no_bar(), learn.no_logging():
        seconds = timed(lambda: learn.fit_one_cycle(1, 2e-3))
        steps["head"] = seconds | metrics(learn.get_preds())
        learn.unfreeze()
        seconds = timed(lambda: learn.fit_one_cycle(1, slice(1e-5, 1e-3), pct_start=0.3, div=5.0))
        steps["full"] = seconds | metrics(learn.get_preds())
        predictions: list[Any] = []
        seconds = timed(lambda: predictions.extend(learn.tta(n=4)))
        steps["tta"] = seconds | metrics(predictions)
    print(json.dumps(steps))


def timed(work: Callable[[], object]) -> dict[str, float]:
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def metrics(predictions: Sequence[Any]) -> dict[str, float]:
    """Returns accuracy and log loss of float32 probabilities (n, classes) and targets (n,). scikit-learn clips the
    probabilities at float32's epsilon, as for this project's metrics."""
    probabilities, targets = (tensor.numpy() for tensor in predictions)
    labels = range(probabilities.shape[1])
    return {
        "accuracy": float(accuracy_score(targets, probabilities.argmax(1))),
        "log_loss": float(log_loss(targets, probabilities, labels=labels)),
    }


if __name__ == "__main__":
    main()
