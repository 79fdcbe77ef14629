"""What training asks of a task, and what else a task must say: `stages/tasks` holds those that there are.

Targets and predictions are NumPy arrays with a row an item, outputs and batches of targets tensors on the device.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd
    import torch

Array = npt.NDArray[Any]
Floats64 = npt.NDArray[np.float64]


class Objective(Protocol):
    """What the training loop, the range test and prediction ask."""

    @property
    def n_outputs(self) -> int:
        """Numbers that the network gives for an item."""

    @property
    def uninformed_loss(self) -> float:
        """The loss of who knows nothing of an item: by it a training sees that its loss explodes."""

    def loss(
        self,
        outputs: "torch.Tensor",
        y: "torch.Tensor",
        weight: "torch.Tensor | None" = None,
        label_smoothing: float = 0.0,
    ) -> "torch.Tensor":
        """Mean over the batch, a float32 scalar. `outputs` (n, n_outputs) of any float type; `weight` (n,): of the
        items in that mean, alike by default. Raises StageError: the task has no smoothing, and some is wanted."""

    def predict(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """What people read, float32 (n, ...): probabilities, numbers, ... Averaged as they are over augmented views."""

    def losses(self, predictions: Array, y: Array) -> Floats64:
        """float64 (n,): the loss of each item, without smoothing. Their mean is `valid_loss`; they rank errors."""

    def scores(self, predictions: Array, y: Array) -> dict[str, Array]:
        """(n,) each: what else is said of each item; the means are columns of history.csv."""


class Task(Objective, Protocol):
    """What is learnt, as the stages, the pages and the model files know it."""

    @property
    def name(self) -> str:
        """As `task` in params.yaml and in a model file."""

    @property
    def shown(self) -> Mapping[str, str]:
        """The metrics that people look at first, of TTA too: name, and the column of history.csv that holds it."""

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """The task that these labels, those of train, set."""

    @classmethod
    def of_columns(cls, columns: Iterable[object]) -> Self:
        """The task whose predictions a table with these columns holds: see `columns`."""

    @staticmethod
    def strata(labels: Sequence[str]) -> list[str]:
        """The stratum of each, of which a stratified split gives every side its share."""

    @staticmethod
    def counts(labels: Sequence[str]) -> dict[str, int]:
        """How many there are of each class, sorted; of each that there is, train must have one. Numbers have none."""

    def parse(self, labels: Sequence[str], ids: Sequence[str]) -> Array:
        """Targets (n, ...). Raises StageError: a label that the task does not know, with its row and id."""

    def decode(self, predictions: Array) -> list[str]:
        """Each prediction as a label."""

    def columns(self, prefix: str, predictions: Array) -> dict[str, Array]:
        """Of a table with predictions: `plain:<class>`, `tta:<class>`."""

    def read(self, table: "pd.DataFrame", prefix: str) -> Floats64:
        """Predictions from the columns of that prefix."""

    def answer(self, predictions: Array) -> dict[str, Any]:
        """Columns that `stages.predict` writes."""

    def submission(self, predictions: Array) -> dict[str, Floats64]:
        """Columns of a Kaggle submission, beside `id`."""

    def metrics(self, predictions: Array, y: Array) -> dict[str, float]:
        """Flat keys: those of `shown`, then others."""

    def baselines(self, y: Array) -> dict[str, float]:
        """Those metrics of a prediction that is the same for all items and the best such one."""

    def facts(self, predictions: Array) -> dict[str, Any]:
        """What model.json says of the predictions beside their metrics."""

    def explained(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """int64 (n,): the output whose evidence Grad-CAM shows."""
