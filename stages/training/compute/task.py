"""The interface of a task: `Objective` is the part that training needs, `Task` adds the rest.

`stages/tasks` implements the interface.

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
        """The loss of a prediction that uses no information on the item. A training whose loss is far above this value
        is stopped, because the loss has exploded."""

    def loss(
        self,
        outputs: "torch.Tensor",
        y: "torch.Tensor",
        weight: "torch.Tensor | None" = None,
        label_smoothing: float = 0.0,
    ) -> "torch.Tensor":
        """Returns the mean loss of the batch, a float32 scalar.

        `outputs` (n, n_outputs) of any float type. `weight` (n,): the weights of the items in the mean, equal by
        default. Raises StageError if the task does not support label smoothing.
        """

    def predict(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Converts outputs to predictions, float32 (n, ...): probabilities, numbers, ... TTA averages predictions."""

    def losses(self, predictions: Array, y: Array) -> Floats64:
        """Returns the loss of each item, float64 (n,), without label smoothing.

        The mean of these losses is `valid_loss`, and the report shows the errors with the highest losses.
        """

    def scores(self, predictions: Array, y: Array) -> dict[str, Array]:
        """Returns other scores of each item, (n,) each. The means of these scores are columns of history.csv."""


class Task(Objective, Protocol):
    """The whole interface of a task, for stages, reports and model files."""

    @property
    def name(self) -> str:
        """The value of `task` in params.yaml and in a model file."""

    @property
    def main_metrics(self) -> Mapping[str, str]:
        """The main metrics, also for TTA: name, and its column of history.csv."""

    @classmethod
    def from_labels(cls, labels: Sequence[str]) -> Self:
        """Returns the task for these labels of the training set."""

    @classmethod
    def from_columns(cls, columns: Iterable[object]) -> Self:
        """Returns the task for a table of predictions with these columns, which the method `columns` made."""

    @staticmethod
    def strata(labels: Sequence[str]) -> list[str]:
        """Returns the stratum of each label. A stratified split gives train and valid equal shares of each stratum."""

    @staticmethod
    def counts(labels: Sequence[str]) -> dict[str, int]:
        """Returns the number of labels of each class, sorted by class; an empty dict for a regression.

        Train must have at least one label of each class.
        """

    def parse(self, labels: Sequence[str], ids: Sequence[str]) -> Array:
        """Converts labels to targets (n, ...). Raises StageError, with row and id, for an unknown label."""

    def decode(self, predictions: Array) -> list[str]:
        """Converts predictions to labels."""

    def columns(self, prefix: str, predictions: Array) -> dict[str, Array]:
        """Converts predictions to columns of a table, named `<prefix>:<class>`; the prefix is `plain` or `tta`."""

    def read(self, table: "pd.DataFrame", prefix: str) -> Floats64:
        """Returns the predictions in the table's columns with that prefix."""

    def answer(self, predictions: Array) -> dict[str, Any]:
        """Returns the columns that `stages.predict` writes."""

    def submission(self, predictions: Array) -> dict[str, Floats64]:
        """Returns the columns of a Kaggle submission, except `id`."""

    def metrics(self, predictions: Array, y: Array) -> dict[str, float]:
        """All metrics, without nesting: those of `main_metrics` first."""

    def baselines(self, y: Array) -> dict[str, float]:
        """Returns the main metrics of the best constant prediction."""

    def facts(self, predictions: Array) -> dict[str, Any]:
        """Returns facts on the predictions for model.json, in addition to the metrics."""

    def output_to_explain(self, outputs: "torch.Tensor") -> "torch.Tensor":
        """Returns the index of the output that Grad-CAM explains, int64 (n,)."""
