"""The interface of a task: `Objective` is what training needs, `Task` the rest. `stages/tasks` implements it.

Targets and predictions are NumPy arrays with one row per item; outputs and batches of targets are tensors.
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
    """The part of a task that the training loop, the range test and prediction use."""

    @property
    def n_outputs(self) -> int:
        """Number of the network's outputs for one item."""

    @property
    def uninformed_loss(self) -> float:
        """The loss of a prediction without information on the item: a training compares its loss with it to see that it
        explodes."""

    def loss(
        self,
        outputs: "torch.Tensor",
        y: "torch.Tensor",
        weight: "torch.Tensor | None" = None,
        label_smoothing: float = 0.0,
    ) -> "torch.Tensor":
        """Mean over the batch, a float32 scalar. `outputs` (n, n_outputs) of any float type; `weight` (n,): of the
        items in that mean, equal by default. Raises StageError if the task does not support label smoothing."""

    def predict(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Outputs to predictions, float32 (n, ...): probabilities, numbers, ... TTA averages these."""

    def losses(self, predictions: Array, y: Array) -> Floats64:
        """float64 (n,): the loss of each item, without smoothing. The mean is `valid_loss`; errors are ranked by it."""

    def scores(self, predictions: Array, y: Array) -> dict[str, Array]:
        """Other scores of each item, (n,) each; their means are columns of history.csv."""


class Task(Objective, Protocol):
    """The whole interface of a task, for stages, reports and model files."""

    @property
    def name(self) -> str:
        """The value of `task` in params.yaml and in a model file."""

    @property
    def main_metrics(self) -> Mapping[str, str]:
        """The main metrics, also for TTA: name, and its column of history.csv."""

    @classmethod
    def of(cls, labels: Sequence[str]) -> Self:
        """The task for these labels of the training set."""

    @classmethod
    def of_columns(cls, columns: Iterable[object]) -> Self:
        """The task for a table of predictions with these columns: see `columns`."""

    @staticmethod
    def strata(labels: Sequence[str]) -> list[str]:
        """The stratum of each label; a stratified split gives train and valid the same share of each stratum."""

    @staticmethod
    def counts(labels: Sequence[str]) -> dict[str, int]:
        """Number of labels of each class, sorted; train must have at least one of each. Empty for a regression."""

    def parse(self, labels: Sequence[str], ids: Sequence[str]) -> Array:
        """Labels to targets (n, ...). Raises StageError, with row and id, for an unknown label."""

    def decode(self, predictions: Array) -> list[str]:
        """Predictions to labels."""

    def columns(self, prefix: str, predictions: Array) -> dict[str, Array]:
        """Predictions to columns of a table: `plain:<class>`, `tta:<class>`."""

    def read(self, table: "pd.DataFrame", prefix: str) -> Floats64:
        """Predictions from the columns with that prefix."""

    def answer(self, predictions: Array) -> dict[str, Any]:
        """Columns that `stages.predict` writes."""

    def submission(self, predictions: Array) -> dict[str, Floats64]:
        """Columns of a Kaggle submission, except `id`."""

    def metrics(self, predictions: Array, y: Array) -> dict[str, float]:
        """All metrics, without nesting: those of `main_metrics` first."""

    def baselines(self, y: Array) -> dict[str, float]:
        """The same metrics for the best constant prediction."""

    def facts(self, predictions: Array) -> dict[str, Any]:
        """Facts on the predictions for model.json, in addition to the metrics."""

    def explained(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """int64 (n,): the index of the output that Grad-CAM explains."""
