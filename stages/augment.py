"""augment: the head goes on, now on freshly augmented pictures through the frozen body.

In:   data/resize/shards, data/backbone, data/split/{train,valid}.csv, data/train_head/head.safetensors
Out:  data/augment/head.safetensors, history.csv (epoch, train_loss, valid_loss, accuracy), rates.csv (step, lr, loss)
Recipe: step 4 (`precompute=False`): augmentation has no effect on stored activations, so it is a stage of its own.
"""

import time
from pathlib import Path

from stages.common.backbone import load_backbone
from stages.common.device import DeviceParams, compute_on
from stages.common.fit import fit
from stages.common.freeze import train_only
from stages.common.head import load_head, save_head
from stages.common.network import Network
from stages.common.optim import OptimizerParams, make_optimizer
from stages.common.params import Positive, Rate, SizePx, load
from stages.common.picture_feed import picture_feeds
from stages.common.schedule import ScheduleParams, make_schedule, total_epochs
from stages.common.stage import outputs, remember_seconds, run
from stages.common.transforms import TransformsParams

HEAD, OUT = Path("data/train_head/head.safetensors"), Path("data/augment")


class AugmentParams(ScheduleParams):
    lr: Rate
    batch_size: Positive


def main() -> None:
    params, seed, start = load("augment", AugmentParams), load("seed", int), time.perf_counter()
    compute = compute_on(load("device", DeviceParams), seed)
    size_px, transforms = load("precompute.size_px", SizePx), load("transforms", TransformsParams)
    about, body = load_backbone()
    network = compute.place(Network(about, body, load_head(HEAD), size_px))
    network.body_batch_size = load("precompute.batch_size", Positive)
    train_only(network.groups(), [False, False, True])
    train, valid = picture_feeds("augment", network, params.batch_size, transforms, seed, compute)
    optimizer = make_optimizer(load("optimizer", OptimizerParams), [network.groups()[-1]], [params.lr])
    schedule = make_schedule(params, train.n_batches())
    epochs = total_epochs(params.n_cycles, params.cycle_len, params.cycle_mult)
    history = fit(network, train, valid, optimizer, schedule, epochs, compute)
    with outputs(OUT) as folder:
        save_head(network.head, folder / "head.safetensors")
        history.write(folder)
        remember_seconds(folder / "history.csv", {"": time.perf_counter() - start})


if __name__ == "__main__":
    run(main)
