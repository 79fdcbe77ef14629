"""tta: plain and averaged predictions for valid and test.

In:   data/train_full/model.safetensors, data/resize/shards, data/split/{valid,test}.csv
Out:  data/tta/{valid,test}.parquet: id, label, and two float32 columns per class: `plain:<class>`, `tta:<class>`
Recipe: TTA. The centre crop and tta.n_aug random augmentations as in training; as in fast.ai 0.7, ceil(n_aug / 4)
        copies of the plain prediction are averaged with the augmented predictions. Probabilities are averaged, not
        their logarithms.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from stages.dataset.tables.split_tables import Rows, read_rows
from stages.models.networks.network import Network, load_network
from stages.runtime import receipt
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import BatchSize, Count, Section, Seed, load
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.tasks.registry import AnyTask
from stages.training.compute.batches import stage_seed
from stages.training.compute.device import Compute, DeviceParams, enough_memory, set_up_device
from stages.training.compute.predict import Floats, average, predict
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import Draws, TransformsParams, draw


class TtaParams(Section):
    n_aug: Count
    batch_size: BatchSize


def tta(
    network: Network, pictures: Pictures, transforms: TransformsParams, n_aug: int, seed: list[int], compute: Compute
) -> tuple[Floats, Floats]:
    """Returns (plain, averaged) predictions, float32 (n, ...). With n_aug = 0 they are equal."""
    views = [draw(transforms, len(pictures), [*seed, view]) for view in range(n_aug)]
    return predict_views(network, pictures, views, compute)


def predict_views(
    network: Network, pictures: Pictures, views: Sequence[Draws | None], compute: Compute
) -> tuple[Floats, Floats]:
    """Returns (plain, averaged) predictions, as `tta` does, for given augmentations: one `Draws` per view."""
    n, n_batches = len(pictures), pictures.n_batches()
    task = network.task
    plain = predict(network, pictures.batches(), n, n_batches, task, compute)
    augmented = [predict(network, pictures.batches(draws=draws), n, n_batches, task, compute) for draws in views]
    return plain, average(plain, augmented)


def as_table(rows: Rows, task: AnyTask, plain: Floats, averaged: Floats) -> pd.DataFrame:
    columns = task.columns("plain", plain) | task.columns("tta", averaged)
    return pd.DataFrame({"id": rows.ids, "label": rows.labels} | columns)


def main() -> None:
    params, seed = load("tta", TtaParams), load("seed", Seed)
    compute = set_up_device(load("device", DeviceParams), seed)
    network = compute.to_device(load_network(stage_folder("train_full") / "model.safetensors"))
    transforms = load("transforms", TransformsParams)
    task, shards, tta_seed = network.task, Shards(stage_folder("resize") / "shards"), stage_seed(seed, "tta")
    # With this batch size the results equal those of stages.predict, whose batches contain other pictures.
    batch_size = compute.deterministic_batch_size(params.batch_size)
    min_batch_size = compute.min_batch_size()
    parts = {part: read_rows(stage_folder("split"), part) for part in ("valid", "test")}
    n = sum(len(rows.ids) for rows in parts.values())
    receipt.note(items=n, computed=n)
    with outputs(stage_folder("tta")) as folder, enough_memory("tta.batch_size", params.batch_size, min_batch_size):
        for part, rows in parts.items():
            pictures = Pictures(shards, rows.sha256s, network.backbone, network.size_px, batch_size, compute)
            empty = np.empty((0, task.n_outputs), np.float32)
            plain, averaged = (
                tta(network, pictures, transforms, params.n_aug, tta_seed, compute) if rows.ids else (empty, empty)
            )
            as_table(rows, task, plain, averaged).to_parquet(folder / f"{part}.parquet", index=False)


if __name__ == "__main__":
    run(main)
