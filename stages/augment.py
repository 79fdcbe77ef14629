"""augment: continue training the head, now on augmented pictures that go through the frozen body.

In:   data/resize/shards, data/backbone, data/split/{train,valid}.csv, data/train_head/head.safetensors,
      data/precompute/shards (valid is not augmented, so its stored activations are used)
Out:  data/augment/head.safetensors, history.csv (epoch, train_loss, valid_loss, accuracy), rates.csv (step, lr, loss),
      tta.csv (one row: n_aug, which is augment.views here; valid_loss and accuracy of the head's predictions,
      both averaged over the plain picture and the views)
      With augment.views > 0 the item store keeps the activations of the views.
Recipe: step 4 (`precompute=False`). Stored activations cannot be augmented, so this stage runs the body on the pictures
        again. With augment.views = 0, as in the fast.ai course, each epoch draws new augmentations; with
        augment.views > 0 that many views are computed once and cached.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
import torch

from stages.dataset.tables.split_tables import read_rows
from stages.models.frozen.activation_feed import AugmentedActivations
from stages.models.frozen.views import Views, ViewsFeed
from stages.models.networks.backbone import load_backbone, weights_sha256
from stages.models.networks.head import Head, load_head, save_head
from stages.runtime import receipt
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import BatchSize, Count, Seed, SizePx, load
from stages.runtime.stage import run
from stages.store.items import ItemsParams
from stages.store.shards import Shards
from stages.training.compute.batches import TrainFeed, stage_seed
from stages.training.compute.device import Compute, DeviceParams, enough_memory, set_up_device
from stages.training.compute.predict import average, predict
from stages.training.loop.checkpoint import Checkpoint
from stages.training.loop.fit import mean_scores, measure
from stages.training.loop.fit_head import FitHeadParams, fit_head
from stages.training.loop.optimizer import OptimizerParams
from stages.training.loop.vector_feed import VectorFeed
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams


class AugmentParams(FitHeadParams):
    """`views`: number of augmented views of each picture, computed once; 0: new augmentations in each epoch."""

    views: Count


def tta(head: Head, valid: VectorFeed, views: Views, compute: Compute) -> pd.DataFrame:
    """Returns one row: metrics of the head's predictions, averaged over the plain picture and its views."""
    n, n_batches = len(valid.sha256s), valid.n_batches()
    feed = ViewsFeed(views, valid.sha256s, valid.targets, valid.batch_size, [])
    task = head.config.task
    plain = predict(head, valid.plain(), n, n_batches, task, compute)
    augmented = [predict(head, feed.view(v, np.arange(n)), n, n_batches, task, compute) for v in range(len(views))]
    scores = mean_scores([measure(task, average(plain, augmented), valid.targets.numpy())])
    return pd.DataFrame([{"n_aug": len(views)} | scores]).round(6)


def main() -> None:
    seed = load("seed", Seed)
    compute = set_up_device(load("device", DeviceParams), seed)
    checkpoint = Checkpoint("augment", compute)
    params = load("augment", AugmentParams)
    size_px = load("precompute.size_px", SizePx)
    requested_batch_size = load("precompute.batch_size", BatchSize)
    body_batch_size = compute.deterministic_batch_size(requested_batch_size)
    min_batch_size = compute.min_batch_size()
    transforms, augment_seed = load("transforms", TransformsParams), stage_seed(seed, "augment")
    backbone, body = load_backbone(stage_folder("backbone"))
    head = compute.to_device(load_head(stage_folder("train_head") / "head.safetensors"))
    task = head.config.task
    (shas, targets), (valid_shas, valid_targets) = (
        (rows.sha256s, torch.from_numpy(task.parse(rows.labels, rows.ids)))
        for rows in (read_rows(stage_folder("split"), part) for part in ("train", "valid"))
    )
    compute.to_device(body)
    pictures = Pictures(Shards(stage_folder("resize") / "shards"), shas, backbone, size_px, body_batch_size, compute)
    train_and_valid = replace(pictures, sha256s=list(dict.fromkeys([*shas, *valid_shas])))
    items = load("items", ItemsParams)
    if params.views and not items.max_gib:
        raise StageError(
            "augment.views needs the item store, and items.max_gib is 0: increase items.max_gib, or "
            "set augment.views to 0"
        )
    backbone_sha256 = weights_sha256(stage_folder("backbone"))
    views = Views(body, train_and_valid, transforms, params.views, augment_seed, items, backbone_sha256)
    train: TrainFeed = AugmentedActivations(body, pictures, targets, transforms, params.batch_size, augment_seed)
    if params.views:
        views.compute_missing()
        train = ViewsFeed(views, shas, targets, params.batch_size, augment_seed)
    activations = Shards(stage_folder("precompute") / "shards")
    valid = VectorFeed(activations, valid_shas, valid_targets, params.batch_size, compute.device, augment_seed)
    with enough_memory("precompute.batch_size", requested_batch_size, min_batch_size):
        history = fit_head(head, train, valid, task, params, load("optimizer", OptimizerParams), compute, checkpoint)
    with outputs(stage_folder("augment")) as folder:
        save_head(head, folder / "head.safetensors")
        history.write(folder)
        tta(head, valid, views, compute).to_csv(folder / "tta.csv", index=False)
    views.close()
    checkpoint.delete()
    if params.views:
        n = len(views) * len(train_and_valid)
        # The number of computed values exceeds n if stored values were damaged and had to be computed again.
        receipt.report_computed(n, min(views.n_computed(), n))


if __name__ == "__main__":
    run(main)
