"""train_full: the whole network at one rate per layer group, at one size or at growing ones.

In:   data/unfreeze/model.safetensors, data/resize/shards, data/split/{train,valid}.csv
Out:  data/train_full/model.safetensors, rates.csv,
      history.csv (epoch, train_loss, valid_loss, accuracy, size_px, kept); epoch 0 is the network as it came
Recipe: step 8, and lesson 2's progressive resizing (`set_data`): first small, then on at a larger size. The course
        saves after each step, so that a bad fine-tune loses nothing: `keep: best` does that by itself.
"""

import time
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from stages.common.device import DeviceParams, compute_on
from stages.common.fit import History, fit, look
from stages.common.freeze import set_bn_momentum, train_only
from stages.common.network import N_GROUPS, Network, load_network, save_network
from stages.common.optim import OptimizerParams, make_optimizer
from stages.common.params import Fraction, Positive, Rate, Section, SizePx, load
from stages.common.picture_feed import picture_feeds
from stages.common.schedule import ScheduleParams, make_schedule, total_epochs
from stages.common.stage import StageError, outputs, remember_seconds, run
from stages.common.transforms import TransformsParams

MODEL, OUT = Path("data/unfreeze/model.safetensors"), Path("data/train_full")

Lrs = Annotated[list[Rate], Field(min_length=N_GROUPS, max_length=N_GROUPS)]
PerSize = Annotated[int, Field(ge=1)] | list[Positive]


class TrainFullParams(Section):
    size_px: SizePx | Annotated[list[SizePx], Field(min_length=1)]
    lrs: Lrs
    schedule: str
    n_cycles: PerSize
    cycle_len: PerSize
    cycle_mult: PerSize
    hold_pct: float
    bn_freeze: bool
    bn_momentum: Fraction
    keep: Literal["best", "last"]
    batch_size: Positive


def phases(params: TrainFullParams) -> list[tuple[int, ScheduleParams]]:
    """(size in px, schedule) one after the other; a single number of cycles counts for every size."""
    sizes = params.size_px if isinstance(params.size_px, list) else [params.size_px]
    columns: dict[str, list[int]] = {}
    for key in ("n_cycles", "cycle_len", "cycle_mult"):
        value = getattr(params, key)
        columns[key] = value if isinstance(value, list) else [value] * len(sizes)
        if len(columns[key]) != len(sizes):
            raise StageError(f"train_full.{key} has {len(columns[key])} numbers, train_full.size_px has {len(sizes)}")
    shared = {"schedule": params.schedule, "hold_pct": params.hold_pct}
    return [
        (size_px, ScheduleParams.model_validate(shared | {key: column[i] for key, column in columns.items()}))
        for i, size_px in enumerate(sizes)
    ]


class Keeper:
    """The weights to save: of the last epoch, or of the one with the lowest valid loss, epoch 0 among them.

    The best one is chosen on valid, so what valid then says of it is a little too kind.
    """

    def __init__(self, network: Network, keep: str) -> None:
        self.network, self.keep = network, keep
        self.row: dict[str, float] = {}

    def __call__(self, row: dict[str, float]) -> None:
        row |= {"size_px": self.network.size_px, "kept": 0}
        if not self.row or self.keep == "last" or row["valid_loss"] < self.row["valid_loss"]:
            self.row.update(kept=0)
            self.row = row
            self.weights = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        self.row.update(kept=1)

    def restore(self) -> None:
        self.network.load_state_dict(self.weights)
        self.network.size_px = int(self.row["size_px"])


def main() -> None:
    params, seed = load("train_full", TrainFullParams), load("seed", int)
    compute = compute_on(load("device", DeviceParams), seed)
    network = compute.place(load_network(MODEL))
    train_only(network.groups(), [lr > 0 for lr in params.lrs])
    set_bn_momentum(network, params.bn_momentum)
    transforms, optimizer_params = load("transforms", TransformsParams), load("optimizer", OptimizerParams)
    history, seconds, keeper = History(), {}, Keeper(network, params.keep)
    for size_px, phase in phases(params):
        start = time.perf_counter()
        if not history.epochs:
            _, valid = picture_feeds("train_full", network, params.batch_size, transforms, seed, compute)
            history.epochs.append({"epoch": 0} | look(network, valid, compute))
            keeper(history.epochs[0])
        network.size_px = size_px
        train, valid = picture_feeds("train_full", network, params.batch_size, transforms, seed, compute)
        optimizer = make_optimizer(optimizer_params, network.groups(), params.lrs)
        epochs = total_epochs(phase.n_cycles, phase.cycle_len, phase.cycle_mult)
        schedule = make_schedule(phase, train.n_batches())
        fit(network, train, valid, optimizer, schedule, epochs, compute, params.bn_freeze, history, keeper)
        seconds[str(size_px)] = time.perf_counter() - start
    keeper.restore()
    with outputs(OUT) as folder:
        save_network(network, folder / "model.safetensors")
        history.write(folder)
        remember_seconds(folder / "history.csv", seconds)


if __name__ == "__main__":
    run(main)
