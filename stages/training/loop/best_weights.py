"""Keeps the weights of the best epoch, or of the last epoch."""

from typing import Any, Literal

import torch
from torch import nn

from stages.training.loop.history import History

Keep = Literal["best", "last"]


class BestWeights:
    """Keeps a copy of the weights at the end of a cycle: of the last cycle if `keep` is `last`; of the cycle with the
    lowest valid loss if it is `best`. For `best`, the weights before the first epoch (epoch 0) count as a cycle.

    In the fast.ai course, weights are saved by hand after each training, so that a bad training can be undone; `best`
    replaces this. Epochs in the middle of a cycle are not considered: the learning rate is high there, and a low loss
    is due to chance and is not confirmed by TTA. The best epoch is chosen by the valid loss, so its valid scores are
    slightly too optimistic.

    `cycle_ends`: the epochs at the end of a cycle.
    """

    def __init__(self, model: nn.Module, keep: Keep, cycle_ends: set[int], history: History) -> None:
        self.model, self.keep, self.cycle_ends, self.history = model, keep, cycle_ends | {0}, history
        self.kept_row: int | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def __call__(self) -> None:
        """Call this after each epoch. Adds the column `kept` to the history: 1 in the row of the kept epoch, 0 in all
        other rows."""
        rows = self.history.epochs
        row = rows[-1]
        row["kept"] = 0
        if row["epoch"] not in self.cycle_ends:
            return
        if self.kept_row is None or self.keep == "last" or row["valid_loss"] < rows[self.kept_row]["valid_loss"]:
            if self.kept_row is not None:
                rows[self.kept_row]["kept"] = 0
            self.kept_row = len(rows) - 1
            self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        rows[self.kept_row]["kept"] = 1

    def restore(self) -> dict[str, float]:
        """Load the kept weights into the model. Returns the history's row of their epoch."""
        self.model.load_state_dict(self.weights)
        return self.history.epochs[self.kept_row or 0]

    def state_dict(self) -> dict[str, Any]:
        return {"kept_row": self.kept_row, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept_row, self.weights = state["kept_row"], state["weights"]
