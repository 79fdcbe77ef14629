"""fastai's side of the comparison, run by its own environment: same pictures, split, weights and size as a project of
ours whose `precompute` and `train_head` have run.

Usage: PYTHON bench/fastai_side.py PROJECT SIZE_PX head|full|tta INGEST_PATH; prints one line of JSON.
fastai's own defaults: vision_learner, aug_transforms, fit_one_cycle at fine_tune's rate. No worker processes: on two
cores they made it slower.
"""

import json
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from fastai.vision.all import (
    CategoryBlock,
    ColReader,
    ColSplitter,
    DataBlock,
    ImageBlock,
    Normalize,
    Resize,
    accuracy,
    aug_transforms,
    set_seed,
    vision_learner,
)  # fmt: skip
from safetensors.torch import load_file


def main() -> None:
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    project, size_px, what = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    about = json.loads((project / "data/backbone/backbone.json").read_text())
    root = project / sys.argv[4]
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
    learn: Any = vision_learner(loaders, about["name"], pretrained=False, normalize=False, metrics=accuracy)
    learn.model[0].model.load_state_dict(load_file(project / "data/backbone/weights.safetensors"), strict=False)
    learn.freeze()
    ready = time.perf_counter()
    with learn.no_bar(), learn.no_logging():
        if what == "head":
            learn.fit_one_cycle(1, 2e-3)
        elif what == "full":
            learn.unfreeze()
            learn.fit_one_cycle(1, slice(1e-5, 1e-3))
        else:
            learn.tta(n=4)
        done = time.perf_counter()
        loss, right = learn.validate()
    print(json.dumps({
        "what": what, "seconds": done - ready, "seconds_with_imports": done - started, "accuracy": float(right),
        "log_loss": float(loss), "n_train": len(parts[0]), "n_valid": len(parts[1]), "threads": torch.get_num_threads(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
