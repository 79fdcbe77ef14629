"""unfreeze: join body and head into one network of three layer groups, and run a range test on it.

In the range test the learning rates are lower towards the input.

In:   data/resize/shards, data/backbone, data/split/train.csv, data/augment/head.safetensors,
      data/ingest/depth.json, which the model file stores
Out:  data/unfreeze/model.safetensors, curve.csv (lr of the head, loss, smoothed), curve.png, suggestion.json
Recipe: steps 5 to 7. Each earlier group's rate is divided by unfreeze.lr_factor: 10 for photographs, 3 for pictures
        unlike ImageNet (medical, satellite, solar cells). The rates are then set by hand in train_full.lrs.
"""

from typing import Annotated

import torch
from pydantic import Field

from stages.dataset.tables.split_tables import read_rows
from stages.models.networks.backbone import load_backbone
from stages.models.networks.depthwise import prepare_network
from stages.models.networks.head import load_head
from stages.models.networks.network import N_GROUPS, Network, save_network
from stages.reporting.figures.range_test import write_curve
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Seed, SizePx, TrainBatchSize, load
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.training.compute.batches import stage_seed
from stages.training.compute.device import DeviceParams, enough_memory, set_up_device
from stages.training.loop.lr_finder import RangeTestParams, range_test
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.vision.batches.picture_feed import PictureFeed
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import ResizeParams, resizing
from stages.vision.batches.transforms import TransformsParams


class UnfreezeParams(RangeTestParams):
    size_px: SizePx
    lr_factor: Annotated[float, Field(ge=1, le=1000)]
    batch_size: TrainBatchSize


def main() -> None:
    params, seed = load("unfreeze", UnfreezeParams), load("seed", Seed)
    compute = set_up_device(load("device", DeviceParams), seed)
    head_size_px, transforms = load("precompute.size_px", SizePx), load("transforms", TransformsParams)
    resize_settings = resizing(load("resize", ResizeParams), stage_folder("ingest") / "depth.json")
    backbone, body = load_backbone(stage_folder("backbone"))
    body.check_size(params.size_px, "unfreeze.size_px")
    head = load_head(stage_folder("augment") / "head.safetensors")
    network = prepare_network(
        Network(backbone, resize_settings, body, head, head_size_px).requires_grad_(True), compute
    )
    rows = read_rows(stage_folder("split"), "train")
    targets = torch.from_numpy(network.task.parse(rows.labels, rows.ids))
    shards = Shards(stage_folder("resize") / "shards")
    pictures = Pictures(shards, rows.sha256s, backbone, params.size_px, params.batch_size, compute)
    feed = PictureFeed(pictures, targets, transforms, stage_seed(seed, "unfreeze"))
    lrs = [params.lr_start / params.lr_factor ** (N_GROUPS - 1 - group) for group in range(N_GROUPS)]
    optimizer = make_optimizer(load("optimizer", OptimizerParams), network.groups(), lrs)
    with outputs(stage_folder("unfreeze")) as folder, enough_memory("unfreeze.batch_size", params.batch_size):
        write_curve(
            range_test(network, feed, network.task, optimizer, params, compute, load("train_full.bn_freeze", bool)),
            "All layers: learning-rate range test",
            folder,
        )
        save_network(network, folder / "model.safetensors")


if __name__ == "__main__":
    run(main)
