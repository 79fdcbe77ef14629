"""The history of a training: losses, scores and rates."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

Rows = list[dict[str, float]]


@dataclass
class History:
    """One row per epoch (`epochs`) and one row per iteration (`steps`)."""

    epochs: Rows = field(default_factory=list)
    steps: Rows = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """history.csv (epochs) and rates.csv (steps)."""
        pd.DataFrame(self.epochs).round(6).to_csv(folder / "history.csv", index=False)
        pd.DataFrame(self.steps).round(8).to_csv(folder / "rates.csv", index=False)

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs[:], self.steps[:] = state["epochs"], state["steps"]
