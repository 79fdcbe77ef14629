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
from stages.training.loop.checkpoint import Checkpoint, Position, Stateful
from stages.training.loop.freeze import train_mode
from stages.training.loop.history import History
from stages.training.loop.live import Curves
from stages.training.loop.step import train_step

EXPLOSION_FACTOR = 50  # times the uninformed loss and that of the first steps; below 10 some trainings recover


@dataclass
class Training:
    """The objects and settings of one call of `fit`."""

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

    def epoch(self, position: Position) -> dict[str, float]:
        """Train from `position` to the end of its epoch, then validate; returns the epoch's row of the history.

        Raises StageError or Stopped."""
        try:
            self._batches(position)
            losses = [step["loss"] for step in self.history.steps[-self.train.n_batches() :]]
            row = {"epoch": position.epoch + 1, "train_loss": float(np.mean(losses))}
            return row | validate(self.model, self.valid, self.task, self.compute)
        except Stopped:
            self.save(position)
            print(f"stopped in epoch {position.epoch + 1} after {position.batch} batches")
            raise

    def _batches(self, position: Position) -> None:
        train_mode(self.model, self.bn_freeze)
        n_batches, epoch = self.train.n_batches(), position.epoch
        batches = self.train.epoch(epoch, position.batch)
        for batch in track(batches, n_batches, f"batches of epoch {epoch + 1}", position.batch):
            lrs = [float(group["lr"]) for group in self.optimizer.param_groups]
            loss = train_step(
                self.model, batch, self.task, self.optimizer, self.compute, self.label_smoothing, self.scaler
            )
            check_loss(loss, lrs, epoch, self.history, self.task.uninformed_loss)
            self.schedule.step()
            self.history.steps.append({"step": len(self.history.steps), "lr": lrs[-1], "loss": loss})
            if self.curves:
                self.curves.step()
            position.batch += 1
            if self.checkpoint and self.checkpoint.is_due():
                self.save(position)

    def parts(self) -> dict[str, Stateful]:
        """The objects whose state a checkpoint holds."""
        parts: dict[str, Stateful] = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule,
            "history": self.history,
        }
        return parts if self.scaler is None else parts | {"scaler": self.scaler}

    def save(self, position: Position) -> None:
        if self.checkpoint:
            self.checkpoint.save(position, self.parts())


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
    """Train for whole epochs and validate after each. `history` is continued, for progressive resizing. If `checkpoint`
    holds a training that was stopped in the middle of an epoch, it resumes there.

    `train_loss` includes label smoothing, `valid_loss` does not.

    Raises:
        StageError: the loss is not finite or explodes; the message names the step, rates and last good loss.
        Stopped: the stage was asked to stop; the checkpoint is written.
    """
    history = History() if history is None else history
    first = max((int(row["epoch"]) for row in history.epochs), default=0)
    training = Training(
        model, train, valid, task, optimizer, make_schedule(optimizer), compute, bn_freeze, label_smoothing, history,
        checkpoint, compute.grad_scaler(),
    )  # fmt: skip
    position = Position(checkpoint.phase if checkpoint else 0, epoch=first, last=first + epochs)
    if checkpoint:
        position = checkpoint.resume(position, training.parts())
        training.curves = Curves(checkpoint.stage, history, train.n_batches())
    while position.epoch < position.last:
        row = training.epoch(position)
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
        position.epoch, position.batch = position.epoch + 1, 0
    training.save(position)  # the rest of the stage may take long too
    return history


def check_loss(loss: float, lrs: list[float], epoch: int, history: History, uninformed_loss: float) -> None:
    """Raises StageError if the loss is not finite, or if the mean of the last 20 losses is far above both that of the
    first 20 and `uninformed_loss`."""
    losses = [step["loss"] for step in history.steps[-19:]] + [loss]
    at_first = [step["loss"] for step in history.steps[:20]]
    bound = EXPLOSION_FACTOR * max(uninformed_loss, float(np.mean(at_first or [loss])))
    if math.isfinite(loss) and (len(history.steps) < 40 or np.mean(losses) <= bound):
        return
    good = next((step["loss"] for step in reversed(history.steps) if step["loss"] <= bound), None)
    last_good = "no step was good" if good is None else f"the last good loss was {good:.4f}"
    raise StageError(
        f"the loss is {loss:.6g} at step {len(history.steps)} (epoch {epoch + 1}), learning rates {lrs}; {last_good}: "
        "lower the rates in params.yaml"
    )


def validate(model: nn.Module, valid: ValidFeed, task: Objective, compute: Compute) -> dict[str, float]:
    """`valid_loss` and the task's scores, of predictions without augmentation."""
    return mean_scores(
        measure(task, predicted, batch.targets().cpu().numpy()[: len(predicted)])
        for predicted, batch in predict_batches(model, valid.plain(), valid.n_batches(), task, compute)
    )


def measure(task: Objective, predictions: Array, y: Array) -> dict[str, Array]:
    """Loss and scores of each item, (n,); their means are columns of history.csv."""
    return {"valid_loss": task.losses(predictions, y)} | task.scores(predictions, y)


def mean_scores(parts: Iterable[dict[str, Array]]) -> dict[str, float]:
    """Means over the items of all `parts`."""
    batches = list(parts)
    return {name: float(np.concatenate([batch[name] for batch in batches]).mean()) for name in batches[0]}
