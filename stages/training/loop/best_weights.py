"""Keeps the weights of the best epoch, or of the last."""

from typing import Any, Literal

import torch
from torch import nn

from stages.training.loop.history import History

Keep = Literal["best", "last"]


class BestWeights:
    """Keeps a copy of the weights at the end of a cycle: of the last one (`last`), or of the one with the lowest valid
    loss, epoch 0 included (`best`).

    The course saves by hand after each training step, so that a bad one loses nothing; `best` replaces that. Epochs in
    the middle of a cycle do not count: the rate is high there, and a low loss is chance and does not last under TTA.
    The best epoch is chosen on valid, so its valid scores are slightly too optimistic.
    """

    def __init__(self, model: nn.Module, keep: Keep, ends: set[int], history: History) -> None:
        self.model, self.keep, self.ends, self.history = model, keep, ends | {0}, history
        self.kept: int | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def __call__(self) -> None:
        """Call after each epoch; adds the column `kept` to the history: 1 in one row, 0 in the others."""
        rows = self.history.epochs
        row = rows[-1]
        row["kept"] = 0
        if row["epoch"] not in self.ends:
            return
        if self.kept is None or self.keep == "last" or row["valid_loss"] < rows[self.kept]["valid_loss"]:
            if self.kept is not None:
                rows[self.kept]["kept"] = 0
            self.kept = len(rows) - 1
            self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        rows[self.kept]["kept"] = 1

    def restore(self) -> dict[str, float]:
        """Put the kept weights back; returns the row of their epoch."""
        self.model.load_state_dict(self.weights)
        return self.history.epochs[self.kept or 0]

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept, self.weights = state["kept"], state["weights"]
