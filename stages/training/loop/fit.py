"""The training loop: one for the head on activations, the head on pictures and the whole network."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stages.runtime.errors import StageError
from stages.runtime.signals import Stopped
from stages.runtime.stage import track
from stages.training.compute.batches import TrainFeed, ValidFeed
from stages.training.compute.device import Compute
from stages.training.compute.predict import predict_batches
from stages.training.compute.task import Array, Objective
from stages.training.loop.checkpoint import Checkpoint, Place, Stateful
from stages.training.loop.freeze import train_mode
from stages.training.loop.history import History
from stages.training.loop.live import Curves
from stages.training.loop.step import train_step

EXPLODED = 50  # times the loss of who knows nothing, and of the first steps: below 10 some come back


@dataclass
class Training:
    """What a call of `fit` works on."""

    model: nn.Module
    train: TrainFeed
    valid: ValidFeed
    task: Objective
    optimizer: Optimizer
    schedule: LRScheduler
    compute: Compute
    bn_freeze: bool
    label_smoothing: float
    history: History
    checkpoint: Checkpoint | None
    scaler: torch.amp.GradScaler | None
    curves: Curves | None = None

    def epoch(self, place: Place) -> dict[str, float]:
        """From `place` to the end of its epoch, and a look at valid: the epoch's row. Raises StageError, Stopped."""
        try:
            self._batches(place)
            seen = [step["loss"] for step in self.history.steps[-self.train.n_batches() :]]
            row = {"epoch": place.epoch + 1, "train_loss": float(np.mean(seen))}
            return row | validate(self.model, self.valid, self.task, self.compute)
        except Stopped:
            self.save(place)
            print(f"stopped in epoch {place.epoch + 1} after {place.batch} batches")
            raise

    def _batches(self, place: Place) -> None:
        train_mode(self.model, self.bn_freeze)
        n_batches, epoch = self.train.n_batches(), place.epoch
        batches = self.train.epoch(epoch, place.batch)
        for batch in track(batches, n_batches, f"batches of epoch {epoch + 1}", place.batch):
            lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
            loss = train_step(
                self.model, batch, self.task, self.optimizer, self.compute, self.label_smoothing, self.scaler
            )
            check_loss(loss, lrs, epoch, self.history, self.task.uninformed_loss)
            self.schedule.step()
            self.history.steps.append({"step": len(self.history.steps), "lr": lrs[-1], "loss": loss})
            if self.curves:
                self.curves.step()
            place.batch += 1
            if self.checkpoint and self.checkpoint.is_due():
                self.save(place)

    def parts(self) -> dict[str, Stateful]:
        parts: dict[str, Stateful] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "history": self.history,
        }
        return parts if self.scaler is None else parts | {"scaler": self.scaler}

    def save(self, place: Place) -> None:
        if self.checkpoint:
            self.checkpoint.save(place, self.parts())


def fit(
    model: nn.Module,
    train: TrainFeed,
    valid: ValidFeed,
    task: Objective,
    optimizer: Optimizer,
    make_schedule: Callable[[Optimizer], LRScheduler],
    epochs: int,
    compute: Compute,
    bn_freeze: bool = True,
    label_smoothing: float = 0.0,
    history: History | None = None,
    after_epoch: Callable[[], None] | None = None,
    checkpoint: Checkpoint | None = None,
) -> History:
    """Train for whole epochs and look at valid after each. `history` is continued: progressive resizing goes on, and so
    does a training that was stopped in the middle of an epoch, where `checkpoint` holds one.

    `train_loss` contains the smoothing of the labels, `valid_loss` does not.

    Raises:
        StageError: the loss is not finite or explodes; says at which step and rates, and the last good loss.
        Stopped: the stage was asked to; the checkpoint is written.
    """
    history = History() if history is None else history
    first = max((int(row["epoch"]) for row in history.epochs), default=0)
    training = Training(
        model, train, valid, task, optimizer, make_schedule(optimizer), compute, bn_freeze, label_smoothing, history,
        checkpoint, compute.grad_scaler(),
    )  # fmt: skip
    place = Place(checkpoint.phase if checkpoint else 0, epoch=first, last=first + epochs)
    if checkpoint:
        place = checkpoint.resume(place, training.parts())
        training.curves = Curves(checkpoint.stage, history, train.n_batches())
    while place.epoch < place.last:
        row = training.epoch(place)
        if not math.isfinite(row["valid_loss"]):
            raise StageError(
                f"the valid loss is {row['valid_loss']} after epoch {row['epoch']:.0f}: lower the rates in params.yaml"
            )
        history.epochs.append(row)
        print(
            "  ".join(f"{name} {value:.4f}" if name != "epoch" else f"epoch {value:.0f}" for name, value in row.items())
        )
        if after_epoch is not None:
            after_epoch()
        if training.curves:
            training.curves.draw()
        place.epoch, place.batch = place.epoch + 1, 0
    training.save(place)  # what comes after it may take long too
    return history


def check_loss(loss: float, lrs: list[float], epoch: int, history: History, uninformed_loss: float) -> None:
    """Raises StageError: not finite, or for 20 steps on average far above both the first 20 and `uninformed_loss`."""
    losses = [step["loss"] for step in history.steps[-19:]] + [loss]
    at_first = [step["loss"] for step in history.steps[:20]]
    bound = EXPLODED * max(uninformed_loss, float(np.mean(at_first or [loss])))
    if math.isfinite(loss) and (len(history.steps) < 40 or np.mean(losses) <= bound):
        return
    good = next((one for one in reversed([step["loss"] for step in history.steps]) if one <= bound), None)
    said = "no step was good" if good is None else f"the last good loss was {good:.4f}"
    raise StageError(
        f"the loss is {loss:.6g} at step {len(history.steps)} (epoch {epoch + 1}), learning rates {lrs}; {said}: lower "
        "the rates in params.yaml"
    )


def validate(model: nn.Module, valid: ValidFeed, task: Objective, compute: Compute) -> dict[str, float]:
    """`valid_loss`, and what else the task measures, of the plain predictions."""
    return mean_scores(
        measure(task, predicted, batch.targets().cpu().numpy()[: len(predicted)])
        for predicted, batch in predict_batches(model, valid.plain(), valid.n_batches(), task, compute)
    )


def measure(task: Objective, predictions: Array, y: Array) -> dict[str, Array]:
    """Of each item, (n,): the columns that history.csv has the means of."""
    return {"valid_loss": task.losses(predictions, y)} | task.scores(predictions, y)


def mean_scores(parts: Iterable[dict[str, Array]]) -> dict[str, float]:
    """Means over the items of all `parts`."""
    found = list(parts)
    return {name: float(np.concatenate([part[name] for part in found]).mean()) for name in found[0]}
