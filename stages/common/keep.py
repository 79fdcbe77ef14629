"""Which epoch's weights a stage hands on."""

from typing import Literal

from torch import nn

Keep = Literal["best", "last"]


class Keeper:
    """Remembers the weights of the last epoch at the end of a cycle, or of the one among them, and epoch 0, with the
    lowest valid loss.

    The course saves after each step, so that a bad one loses nothing: `best` does that by itself. In the middle of a
    cycle the rate is high: a low loss there is chance, and does not last under TTA. The best epoch is chosen on valid,
    so what valid then says of it is a little too kind.
    """

    def __init__(self, model: nn.Module, keep: Keep, ends: set[int]) -> None:
        self.model, self.keep, self.ends = model, keep, ends | {0}
        self.row: dict[str, float] = {}

    def __call__(self, row: dict[str, float]) -> None:
        """Call after each epoch with its row of the history; adds the column `kept`: 1 in one row, 0 in the others."""
        row["kept"] = 0
        if row["epoch"] not in self.ends:
            return
        if not self.row or self.keep == "last" or row["valid_loss"] < self.row["valid_loss"]:
            self.row.update(kept=0)
            self.row = row
            self.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        self.row["kept"] = 1

    def restore(self) -> dict[str, float]:
        """Put the kept weights back; returns the row of their epoch."""
        self.model.load_state_dict(self.weights)
        return self.row
