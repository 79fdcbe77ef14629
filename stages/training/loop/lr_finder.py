"""The learning-rate range test (Smith 2015, arXiv 1506.01186) as in fast.ai 0.7."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import numpy as np
import pandas as pd
import torch
from pydantic import model_validator
from torch import nn
from torch.optim import Optimizer

from stages.runtime.errors import StageError
from stages.runtime.params import Positive, PositiveRate, Section
from stages.runtime.stage import track
from stages.training.compute.batches import Batch, TrainFeed
from stages.training.compute.device import Compute
from stages.training.compute.task import Objective
from stages.training.loop.freeze import train_mode
from stages.training.loop.step import train_step


class RangeTestParams(Section):
    lr_start: PositiveRate
    lr_end: PositiveRate
    n_iterations: Positive

    @model_validator(mode="after")
    def _grows(self) -> Self:
        if self.lr_start >= self.lr_end:
            raise ValueError("lr_start must be below lr_end")
        return self


@contextmanager
def preserve_state(model: nn.Module, optimizer: Optimizer) -> Iterator[None]:
    """At the end of the `with` block, also after an error, restores the model's weights, buffers and modes, the
    optimiser's state and torch's random state."""
    weights = copy.deepcopy(model.state_dict())
    modes = {module: module.training for module in model.modules()}
    optimizer_state = copy.deepcopy(optimizer.state_dict())
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        try:
            yield
        finally:
            model.load_state_dict(weights)
            optimizer.load_state_dict(optimizer_state)
            optimizer.zero_grad(set_to_none=True)
            for module, training in modes.items():
                module.training = training


def range_test(
    model: nn.Module,
    feed: TrainFeed,
    task: Objective,
    optimizer: Optimizer,
    params: RangeTestParams,
    compute: Compute,
    bn_freeze: bool,
) -> pd.DataFrame:
    """Trains with learning rates that grow geometrically, until the smoothed loss exceeds 4 times its minimum or the
    loss is not finite. Returns a table with the columns lr, loss and smoothed.

    `lr` is the learning rate of the last layer group; the rates of the other groups keep their ratio to it. `smoothed`
    is the bias-corrected moving average of the losses. Its beta is fast.ai 0.7's 0.98 for 100 iterations or more. For
    fewer iterations beta is smaller, so that the average covers the same share of the range.

    Raises:
        StageError: the first loss, before any update of the weights, is not finite.
    """
    beta = min(0.98, 0.98 ** (100 / params.n_iterations))
    ratios = [group["lr"] / optimizer.param_groups[-1]["lr"] for group in optimizer.param_groups]
    growth = (params.lr_end / params.lr_start) ** (1 / max(params.n_iterations - 1, 1))
    rows: list[dict[str, float]] = []
    average, lowest, scaler = 0.0, math.inf, compute.grad_scaler()
    with preserve_state(model, optimizer):
        train_mode(model, bn_freeze)
        batches = _endless(feed)
        for iteration in track(range(params.n_iterations), params.n_iterations, "rates"):
            lr = params.lr_start * growth**iteration
            for group, ratio in zip(optimizer.param_groups, ratios, strict=True):
                group["lr"] = lr * ratio
            loss = train_step(model, next(batches), task, optimizer, compute, scaler=scaler)
            if iteration == 0 and not math.isfinite(loss):
                raise StageError(
                    f"the loss is {loss} before the first iteration of the range test: the network's weights or "
                    "outputs are not finite. Set device.precision to float32; if the head was trained before, reduce "
                    "train_head.lr and augment.lr"
                )
            average = beta * average + (1 - beta) * loss
            smoothed = average / (1 - beta ** (iteration + 1))
            if not math.isfinite(loss) or smoothed > 4 * lowest:
                break
            lowest = min(lowest, smoothed)
            rows.append({"lr": lr, "loss": loss, "smoothed": smoothed})
    return pd.DataFrame(rows, columns=["lr", "loss", "smoothed"])


def _endless(feed: TrainFeed) -> Iterator[Batch]:
    epoch = 0
    while True:
        yield from feed.epoch(epoch)
        epoch += 1


def suggest(curve: pd.DataFrame) -> dict[str, float | None]:
    """Returns `lr_min`, the learning rate with the lowest smoothed loss, and `lr`, a tenth of `lr_min`, where the loss
    still falls.

    The first tenth of the curve is ignored, because there an average of a few noisy losses can be lowest by chance
    (fast.ai 0.7 skips 10 points). `lr` is None if it would be below the tested range: then the loss did not fall, for
    example because the network is already trained.
    """
    settled = curve.iloc[len(curve) // 10 :]
    lr_min = float(settled["lr"].iloc[int(np.argmin(settled["smoothed"]))])
    return {"lr": lr_min / 10 if lr_min / 10 >= curve["lr"].iloc[0] else None, "lr_min": lr_min}
