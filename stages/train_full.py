"""train_full: train the whole network with one learning rate per layer group, at one size or at growing sizes.

In:   data/unfreeze/model.safetensors, data/resize/shards, data/split/{train,valid}.csv, data/augment/history.csv
Out:  data/train_full/model.safetensors, rates.csv,
      history.csv (epoch, train_loss, valid_loss, accuracy, size_px, kept); epoch 0 is the network before this stage
Recipe: step 8, and the progressive resizing of lesson 2 (`set_data`): first small pictures, then larger ones.
"""

from typing import Annotated, Literal

import pandas as pd
import torch
from pydantic import AfterValidator, Field

from stages.dataset.tables.split_tables import read_rows
from stages.models.networks.depthwise import prepare_network
from stages.models.networks.network import N_GROUPS, load_network, save_network
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import CycleCount, Fraction, Rate, Section, Seed, SizePx, TrainBatchSize, load
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.training.compute.batches import stage_seed
from stages.training.compute.device import DeviceParams, enough_memory, set_up_device
from stages.training.loop.best_weights import BestWeights, Keep
from stages.training.loop.checkpoint import Checkpoint
from stages.training.loop.fit import fit
from stages.training.loop.freeze import train_only
from stages.training.loop.history import History
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.schedule import ScheduleParams, cycle_ends, make_schedule, total_epochs
from stages.vision.batches.picture_feed import PictureFeed
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams


def _check_rates(lrs: list[float]) -> list[float]:
    if not any(lrs):
        raise ValueError("at least one layer group must have a rate above 0")
    return lrs


Lrs = Annotated[list[Rate], Field(min_length=N_GROUPS, max_length=N_GROUPS), AfterValidator(_check_rates)]
PerSize = CycleCount | list[CycleCount]


class TrainFullParams(Section):
    size_px: SizePx | Annotated[list[SizePx], Field(min_length=1)]
    lrs: Lrs
    schedule: Literal["sgdr", "one_cycle"]
    n_cycles: PerSize
    cycle_len: PerSize
    cycle_mult: PerSize
    hold_pct: Fraction
    bn_freeze: bool
    label_smoothing: Fraction
    keep: Keep
    batch_size: TrainBatchSize


def phases(params: TrainFullParams) -> list[tuple[int, ScheduleParams]]:
    """Returns (size in px, schedule) in order; a single number of cycles applies to every size."""
    sizes = params.size_px if isinstance(params.size_px, list) else [params.size_px]
    if len(set(sizes)) < len(sizes):
        raise StageError(f"train_full.size_px is {sizes}: name each size once, with its number of cycles")
    columns: dict[str, list[int]] = {}
    for key in ("n_cycles", "cycle_len", "cycle_mult"):
        value = getattr(params, key)
        columns[key] = value if isinstance(value, list) else [value] * len(sizes)
        if len(columns[key]) != len(sizes):
            raise StageError(
                f"train_full.{key} has {len(columns[key])} numbers, but train_full.size_px has {len(sizes)}"
            )
    shared = {"schedule": params.schedule, "hold_pct": params.hold_pct}
    return [
        (size_px, ScheduleParams.model_validate(shared | {key: column[i] for key, column in columns.items()}))
        for i, size_px in enumerate(sizes)
    ]


def epochs_that_end_a_cycle(plan: list[tuple[int, ScheduleParams]]) -> set[int]:
    """Returns the numbers of the epochs that end a cycle, counted through all sizes."""
    epochs, n_epochs = set[int](), 0
    for _, phase in plan:
        epochs |= {n_epochs + end for end in cycle_ends(phase)}
        n_epochs = max(epochs)
    return epochs


def epoch_zero() -> dict[str, float]:
    """Returns the last metrics of augment as those of epoch 0.

    Body and head predict from pictures what the head predicted from stored activations.
    """
    last = pd.read_csv(stage_folder("augment") / "history.csv").iloc[-1]
    return {"epoch": 0} | {str(name): float(last[name]) for name in last.index if name not in ("epoch", "train_loss")}


def main() -> None:
    seed = load("seed", Seed)
    compute = set_up_device(load("device", DeviceParams), seed)
    checkpoint = Checkpoint("train_full", compute)
    params = load("train_full", TrainFullParams)
    network, plan = load_network(stage_folder("unfreeze") / "model.safetensors"), phases(params)
    for size_px, _ in plan:
        network.body.check_size(size_px, "train_full.size_px")
    prepare_network(network, compute)
    train_only(network.groups(), [lr > 0 for lr in params.lrs])
    transforms, optimizer_params = load("transforms", TransformsParams), load("optimizer", OptimizerParams)
    resized = Shards(stage_folder("resize") / "shards")
    parts = [read_rows(stage_folder("split"), part) for part in ("train", "valid")]
    history = History([epoch_zero()])
    best_weights = BestWeights(network, params.keep, epochs_that_end_a_cycle(plan), history)

    def after_epoch() -> None:
        history.epochs[-1]["size_px"] = network.size_px
        best_weights()

    after_epoch()
    checkpoint.extra_state["best_weights"] = best_weights
    for number, (size_px, phase) in enumerate(plan):
        if checkpoint.start_phase(number):
            continue
        network.size_px = size_px
        train, valid = (
            PictureFeed(
                Pictures(resized, rows.sha256s, network.backbone, size_px, params.batch_size, compute),
                torch.from_numpy(network.task.parse(rows.labels, rows.ids)),
                transforms,
                stage_seed(seed, "train_full"),
            )
            for rows in parts
        )
        optimizer = make_optimizer(optimizer_params, network.groups(), params.lrs)
        epochs = total_epochs(phase.n_cycles, phase.cycle_len, phase.cycle_mult)
        schedule = make_schedule(phase, train.n_batches())
        options = (params.bn_freeze, params.label_smoothing, history, after_epoch, checkpoint)
        with enough_memory("train_full.batch_size", params.batch_size):
            fit(network, train, valid, network.task, optimizer, schedule, epochs, compute, *options)
    network.size_px = int(best_weights.restore()["size_px"])
    with outputs(stage_folder("train_full")) as folder:
        save_network(network, folder / "model.safetensors")
        history.write(folder)
    checkpoint.delete()


if __name__ == "__main__":
    run(main)
