"""The training loop, which trains a head on activations as well as a whole network on pictures."""

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

# A training stops if its loss exceeds both the loss of the first iterations and the uninformed loss by this factor. A
# factor below 10 would also stop some trainings that recover.
EXPLOSION_FACTOR = 50


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
        """Train from `position` to the end of its epoch, then validate. Returns the epoch's row of the history.

        Raises StageError if the loss is not finite or explodes, and Stopped if the stage is asked to stop.
        """
        try:
            self._batches(position)
            losses = [row["loss"] for row in self.history.iterations[-self.train.n_batches() :]]
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
            self.history.iterations.append({"step": len(self.history.iterations), "lr": lrs[-1], "loss": loss})
            if self.curves:
                self.curves.after_batch()
            position.batch += 1
            if self.checkpoint and self.checkpoint.is_due():
                self.save(position)

    def parts(self) -> dict[str, Stateful]:
        """Returns the objects whose state a checkpoint contains."""
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
    """Train for whole epochs and validate after each epoch.

    If `history` is given, epochs are appended to it, as progressive resizing does. If `checkpoint` contains a training
    that was stopped, even in the middle of an epoch, the training resumes from there.

    `train_loss` includes label smoothing, `valid_loss` does not.

    Raises:
        StageError: the loss is not finite or explodes; the message contains the iteration, the learning rates and the
            last good loss.
        Stopped: the stage was asked to stop; the checkpoint is written.
    """
    history = History() if history is None else history
    start_epoch = max((int(row["epoch"]) for row in history.epochs), default=0)
    training = Training(
        model, train, valid, task, optimizer, make_schedule(optimizer), compute, bn_freeze, label_smoothing, history,
        checkpoint, compute.grad_scaler(),
    )  # fmt: skip
    position = Position(checkpoint.phase if checkpoint else 0, epoch=start_epoch, end_epoch=start_epoch + epochs)
    if checkpoint:
        position = checkpoint.resume(position, training.parts())
        training.curves = Curves(checkpoint.stage, history, train.n_batches())
    while position.epoch < position.end_epoch:
        row = training.epoch(position)
        if not math.isfinite(row["valid_loss"]):
            raise StageError(
                f"the valid loss is {row['valid_loss']} after epoch {row['epoch']:.0f}: reduce the learning rates in "
                "params.yaml"
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
    training.save(position)  # so that a stage that is stopped after this call need not train again
    return history


def check_loss(loss: float, lrs: list[float], epoch: int, history: History, uninformed_loss: float) -> None:
    """Raises StageError if the loss is not finite, or if the mean of the last 20 losses is more than `EXPLOSION_FACTOR`
    times both `uninformed_loss` and the mean of the first 20 losses."""
    losses = [row["loss"] for row in history.iterations]
    iteration, first_losses, last_losses = len(losses), losses[:20], [*losses[-19:], loss]
    bound = EXPLOSION_FACTOR * max(uninformed_loss, float(np.mean(first_losses or [loss])))
    if math.isfinite(loss) and (iteration < 40 or np.mean(last_losses) <= bound):
        return
    good_loss = next((past_loss for past_loss in reversed(losses) if past_loss <= bound), None)
    last_good = "no earlier loss was good" if good_loss is None else f"the last good loss was {good_loss:.4f}"
    raise StageError(
        f"the loss is {loss:.6g} at iteration {iteration} (epoch {epoch + 1}), learning rates {lrs}; {last_good}: "
        "reduce the learning rates in params.yaml"
    )


def validate(model: nn.Module, valid: ValidFeed, task: Objective, compute: Compute) -> dict[str, float]:
    """Returns `valid_loss` and the task's mean scores of predictions without augmentation."""
    return mean_scores(
        measure(task, predicted, batch.targets().cpu().numpy()[: len(predicted)])
        for predicted, batch in predict_batches(model, valid.plain(), valid.n_batches(), task, compute)
    )


def measure(task: Objective, predictions: Array, y: Array) -> dict[str, Array]:
    """Returns the loss and the scores of each item, (n,) each. The means of these are columns of history.csv."""
    return {"valid_loss": task.losses(predictions, y)} | task.scores(predictions, y)


def mean_scores(parts: Iterable[dict[str, Array]]) -> dict[str, float]:
    """Returns the mean of each score over the items of all `parts`."""
    batches = list(parts)
    return {name: float(np.concatenate([batch[name] for batch in batches]).mean()) for name in batches[0]}
