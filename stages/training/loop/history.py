"""The history of a training: losses, scores and learning rates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

Rows = list[dict[str, float]]


@dataclass
class History:
    """One row per epoch (`epochs`) and one row per iteration (`iterations`)."""

    epochs: Rows = field(default_factory=list)
    iterations: Rows = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Writes history.csv (epochs) and rates.csv (iterations)."""
        pd.DataFrame(self.epochs).round(6).to_csv(folder / "history.csv", index=False)
        pd.DataFrame(self.iterations).round(8).to_csv(folder / "rates.csv", index=False)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "iterations": self.iterations}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs[:], self.iterations[:] = state["epochs"], state["iterations"]
