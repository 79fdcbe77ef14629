"""The training loop: one for the head on activations, the head on pictures and the whole network."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from stages.common.batches import TrainFeed, ValidFeed
from stages.common.device import Compute
from stages.common.freeze import train_mode
from stages.common.predict import Floats, predict
from stages.common.stage import StageError, track


@dataclass
class History:
    """What the loop saw: a row an epoch (`epochs`) and a row an iteration (`steps`)."""

    epochs: list[dict[str, float]] = field(default_factory=list)
    steps: list[dict[str, float]] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """history.csv (epochs) and rates.csv (steps)."""
        pd.DataFrame(self.epochs).round(6).to_csv(folder / "history.csv", index=False)
        pd.DataFrame(self.steps).round(8).to_csv(folder / "rates.csv", index=False)


def train_step(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    optimizer: Optimizer,
    compute: Compute,
    label_smoothing: float = 0.0,
) -> float:
    """One iteration; returns the loss before it. Gradients are not clipped (the recipe does not).

    `label_smoothing`: share of the target spread over all classes (Szegedy et al. 2016, arXiv 1512.00567).
    """
    optimizer.zero_grad(set_to_none=True)
    with compute.autocast():
        logits = model(x)
    loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def fit(
    model: nn.Module,
    train: TrainFeed,
    valid: ValidFeed,
    optimizer: Optimizer,
    make_schedule: Callable[[Optimizer], LRScheduler],
    epochs: int,
    compute: Compute,
    bn_freeze: bool = True,
    label_smoothing: float = 0.0,
    history: History | None = None,
    after_epoch: Callable[[dict[str, float]], None] | None = None,
) -> History:
    """Train for whole epochs and look at valid after each. `history` is continued: progressive resizing goes on.

    `train_loss` contains the smoothing of the labels, `valid_loss` does not.

    Raises:
        StageError: the loss is not finite; says at which step and rates, and the last good loss.
    """
    history = History() if history is None else history
    schedule = make_schedule(optimizer)
    first = max((int(row["epoch"]) for row in history.epochs), default=0)
    for epoch in range(first, first + epochs):
        train_mode(model, bn_freeze)
        losses: list[float] = []
        for x, rows, _ in track(train.epoch(epoch), train.n_batches(), f"batches of epoch {epoch + 1}"):
            lrs = [float(group["lr"]) for group in optimizer.param_groups]
            y = train.labels[rows].to(compute.device)
            loss = train_step(model, x, y, optimizer, compute, label_smoothing)
            if not math.isfinite(loss):
                good = f"the last good loss was {losses[-1]:.4f}" if losses else "no step of this epoch was good"
                raise StageError(
                    f"the loss is {loss} at step {len(history.steps)} (epoch {epoch + 1}), learning rates {lrs}; "
                    f"{good}: lower the rates in params.yaml"
                )
            schedule.step()
            losses.append(loss)
            history.steps.append({"step": len(history.steps), "lr": lrs[-1], "loss": loss})
        row = {"epoch": epoch + 1, "train_loss": float(np.mean(losses))} | look(model, valid, compute)
        if not math.isfinite(row["valid_loss"]):
            raise StageError(
                f"the valid loss is {row['valid_loss']} after epoch {epoch + 1}: lower the rates in params.yaml"
            )
        history.epochs.append(row)
        print(
            "  ".join(f"{name} {value:.4f}" if name != "epoch" else f"epoch {value:.0f}" for name, value in row.items())
        )
        if after_epoch is not None:
            after_epoch(row)
    return history


def look(model: nn.Module, valid: ValidFeed, compute: Compute) -> dict[str, float]:
    """`valid_loss` (log loss) and `accuracy` of the plain predictions."""
    truth = valid.labels.numpy()
    probabilities = predict(model, valid.plain(), len(truth), valid.n_batches(), compute)
    return score(probabilities, truth)


def score(probabilities: Floats, truth: npt.NDArray[np.int64]) -> dict[str, float]:
    accuracy = float((probabilities.argmax(1) == truth).mean())
    return {"valid_loss": log_loss(probabilities, truth), "accuracy": accuracy}


def log_loss(probabilities: Floats, truth: npt.NDArray[np.int64]) -> float:
    """Mean of -ln p(truth), p clipped at float32's epsilon as scikit-learn does (not imported here: it takes 1.2 s)."""
    picked = probabilities[np.arange(len(truth)), truth].clip(np.finfo(np.float32).eps, 1)
    return float(-np.log(picked.astype(np.float64)).mean())
