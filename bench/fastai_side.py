"""fastai's side of the comparison, run by its own environment: same pictures, split, weights and size as a project of
ours whose `precompute` and `train_head` have run.

Usage: PYTHON bench/fastai_side.py PROJECT SIZE_PX INGEST_PATH; prints a line of JSON: what each step took and reached.
fastai's own defaults: vision_learner, aug_transforms, an epoch of the head by fit_one_cycle, an epoch of everything as
fine_tune goes on, tta. No worker processes: on two cores they made it slower.
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
    about = json.loads((project / "data/backbone/backbone.json").read_text(encoding="utf-8"))
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
        batch_tfms=[*aug_transforms(), Normalize.from_stats(about["mean"], about["std"])],
    )
    loaders = block.dataloaders(table, bs=64, num_workers=0)
    learn: Any = vision_learner(loaders, about["name"], pretrained=False, normalize=False)
    learn.model[0].model.load_state_dict(load_file(project / "data/backbone/weights.safetensors"), strict=False)
    learn.freeze()
    steps: dict[str, dict[str, float]] = {}
    with learn.no_bar(), learn.no_logging():
        took = timed(lambda: learn.fit_one_cycle(1, 2e-3))
        steps["head"] = took | of(learn.get_preds())
        learn.unfreeze()
        took = timed(lambda: learn.fit_one_cycle(1, slice(1e-5, 1e-3), pct_start=0.3, div=5.0))
        steps["full"] = took | of(learn.get_preds())
        predictions: list[Any] = []
        took = timed(lambda: predictions.extend(learn.tta(n=4)))
        steps["tta"] = took | of(predictions)
    print(json.dumps(steps))


def timed(work: Callable[[], object]) -> dict[str, float]:
    start = time.perf_counter()
    work()
    return {"seconds": time.perf_counter() - start}


def of(predictions: Sequence[Any]) -> dict[str, float]:
    """Of float32 probabilities (n, classes) and targets (n,); clipped at float32's epsilon, as ours are."""
    probabilities, targets = (tensor.numpy() for tensor in predictions)
    labels = range(probabilities.shape[1])
    return {
        "accuracy": float(accuracy_score(targets, probabilities.argmax(1))),
        "log_loss": float(log_loss(targets, probabilities, labels=labels)),
    }


if __name__ == "__main__":
    main()
