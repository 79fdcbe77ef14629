"""augment: the head goes on, now on augmented pictures through the frozen body.

In:   data/resize/shards, data/backbone, data/split/{train,valid}.csv, data/train_head/head.safetensors,
      data/precompute/shards (valid is not augmented: its stored activations serve)
Out:  data/augment/head.safetensors, history.csv (epoch, train_loss, valid_loss, accuracy), rates.csv (step, lr, loss),
      tta.csv (n_aug, valid_loss, accuracy: of the head's predictions averaged over the views)
      With augment.views the views' activations are remembered in the item store.
Recipe: step 4 (`precompute=False`): augmentation has no effect on stored activations, so it is a stage of its own.
        augment.views: 0 is the course's way, each epoch's pictures drawn anew; K views are computed once.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from stages.common import receipt
from stages.common.activation_feed import AugmentedActivations
from stages.common.backbone import load_backbone
from stages.common.batches import TrainFeed, stage_key
from stages.common.checkpoint import Checkpoint
from stages.common.device import Compute, DeviceParams, compute_on, enough_memory
from stages.common.fit import score
from stages.common.fit_head import FitHeadParams, fit_head
from stages.common.head import Head, labels_to_indexes, load_head, save_head
from stages.common.items import ItemsParams
from stages.common.optim import OptimizerParams
from stages.common.outputs import outputs
from stages.common.params import BatchSize, Count, Seed, SizePx, load
from stages.common.pictures import Pictures
from stages.common.predict import average, predict
from stages.common.rows import read_rows
from stages.common.shards import Shards
from stages.common.stage import run
from stages.common.transforms import TransformsParams
from stages.common.trouble import StageError
from stages.common.vector_feed import VectorFeed
from stages.common.views import Views, ViewsFeed

RESIZED, ACTIVATIONS = Path("data/resize/shards"), Path("data/precompute/shards")
HEAD, OUT = Path("data/train_head/head.safetensors"), Path("data/augment")


class AugmentParams(FitHeadParams):
    """`views`: augmented views of each picture, computed once and remembered; 0: drawn anew each epoch."""

    views: Count


def tta(head: Head, valid: VectorFeed, views: Views, compute: Compute) -> pd.DataFrame:
    """One row: the head's predictions averaged over the plain picture and its views."""
    n, n_batches = len(valid.sha256s), valid.n_batches()
    feed = ViewsFeed(views, valid.sha256s, valid.labels, valid.batch_size, [])
    plain = predict(head, valid.plain(), n, n_batches, compute)
    augmented = [predict(head, feed.view(v, np.arange(n)), n, n_batches, compute) for v in range(len(views))]
    said = score(average(plain, augmented), valid.labels.numpy())
    return pd.DataFrame([{"n_aug": len(views)} | said]).round(6)


def main() -> None:
    seed = load("seed", Seed)
    compute = compute_on(load("device", DeviceParams), seed)
    checkpoint = Checkpoint("augment", compute)
    params = load("augment", AugmentParams)
    size_px = load("precompute.size_px", SizePx)
    body_batch_size = compute.whole(load("precompute.batch_size", BatchSize))
    transforms, key = load("transforms", TransformsParams), stage_key(seed, "augment")
    (about, body), head = load_backbone(), compute.place(load_head(HEAD))
    (shas, labels), (valid_shas, valid_labels) = (
        (rows.sha256s, labels_to_indexes(rows.labels, head.shape.classes))
        for rows in (read_rows("train"), read_rows("valid"))
    )
    compute.place(body)
    pictures = Pictures(Shards(RESIZED), shas, about, size_px, body_batch_size, compute)
    both = replace(pictures, sha256s=list(dict.fromkeys([*shas, *valid_shas])))
    items = load("items", ItemsParams)
    if params.views and not items.max_gib:
        raise StageError("augment.views must be remembered, and items.max_gib is 0: set it higher, or the views to 0")
    views = Views(body, both, transforms, params.views, key, items)
    train: TrainFeed = AugmentedActivations(body, pictures, labels, transforms, params.batch_size, key)
    if params.views:
        views.complete()
        train = ViewsFeed(views, shas, labels, params.batch_size, key)
    valid = VectorFeed(Shards(ACTIVATIONS), valid_shas, valid_labels, params.batch_size, compute.device, key)
    with enough_memory("precompute.batch_size", body_batch_size):
        history = fit_head(head, train, valid, params, load("optimizer", OptimizerParams), compute, checkpoint)
    with outputs(OUT) as folder:
        save_head(head, folder / "head.safetensors")
        history.write(folder)
        tta(head, valid, views, compute).to_csv(folder / "tta.csv", index=False)
    views.close()
    checkpoint.forget()
    if params.views:
        n = len(views) * len(both)
        receipt.remembered(n, min(views.made(), n))  # what was damaged meanwhile was made twice


if __name__ == "__main__":
    run(main)
