"""unfreeze: body and head become one network in three layer groups; range test at rates that fall towards the input.

In:   data/resize/shards, data/backbone, data/split/train.csv, data/augment/head.safetensors
Out:  data/unfreeze/model.safetensors, curve.csv (lr of the head, loss, smoothed), curve.png, suggestion.json
Recipe: steps 5 to 7. Each earlier group gets a rate lower by unfreeze.lr_factor: 10 for photographs, 3 for pictures
        unlike ImageNet (medical, satellite, solar cells). The rates are then set by hand in train_full.lrs.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from stages.common.backbone import load_backbone
from stages.common.device import DeviceParams, compute_on, enough_memory
from stages.common.head import load_head
from stages.common.lr_finder import RangeTestParams, range_test, write_curve
from stages.common.network import N_GROUPS, Network, save_network
from stages.common.optim import OptimizerParams, make_optimizer
from stages.common.outputs import outputs
from stages.common.params import Seed, SizePx, TrainBatchSize, load
from stages.common.picture_feed import picture_feed
from stages.common.preprocessing import ResizeParams
from stages.common.rows import read_rows
from stages.common.stage import run
from stages.common.transforms import TransformsParams

HEAD, OUT = Path("data/augment/head.safetensors"), Path("data/unfreeze")


class UnfreezeParams(RangeTestParams):
    size_px: SizePx
    lr_factor: Annotated[float, Field(ge=1, le=1000)]
    batch_size: TrainBatchSize


def main() -> None:
    params, seed = load("unfreeze", UnfreezeParams), load("seed", Seed)
    compute = compute_on(load("device", DeviceParams), seed)
    size_px, transforms = load("precompute.size_px", SizePx), load("transforms", TransformsParams)
    resize = load("resize", ResizeParams)
    about, body = load_backbone()
    network = compute.place(Network(about, resize, body, load_head(HEAD), size_px).requires_grad_(True))
    network.size_px = params.size_px  # the range test runs at the size of train_full; the network was made at another
    feed = picture_feed(read_rows("train"), "unfreeze", network, params.batch_size, transforms, seed, compute)
    network.size_px = size_px
    lrs = [params.lr_start / params.lr_factor ** (N_GROUPS - 1 - group) for group in range(N_GROUPS)]
    optimizer = make_optimizer(load("optimizer", OptimizerParams), network.groups(), lrs)
    with outputs(OUT) as folder, enough_memory("unfreeze.batch_size", params.batch_size):
        write_curve(
            range_test(network, feed, optimizer, params, compute, load("train_full.bn_freeze", bool)),
            "All layers: learning-rate range test",
            folder,
        )
        save_network(network, folder / "model.safetensors")


if __name__ == "__main__":
    run(main)
