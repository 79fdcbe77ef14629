"""Predictions and actual classes, and the choice of pictures to look at (lesson 1 of the fast.ai course)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

from stages.tasks.registry import AnyTask

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Predictions for n pictures. `actual`: class indexes, int64 (n,); `probabilities`: float64 (n, classes).

    Methods that choose pictures return row numbers; pictures with equal values keep their order.
    """

    task: AnyTask
    actual: Ints
    probabilities: Floats

    @classmethod
    def of(cls, table: pd.DataFrame, kind: str, task: AnyTask) -> "Predictions":
        """Reads predictions from a table as data/tta/valid.parquet; `kind` is plain or tta."""
        actual = task.parse(table["label"].tolist(), table["id"].tolist())
        return cls(task, actual, task.read(table, kind))

    @property
    def classes(self) -> list[str]:
        return self.task.classes

    @cached_property
    def predicted(self) -> Ints:
        """Index of the class with the highest probability, int64 (n,)."""
        predicted: Ints = self.probabilities.argmax(1)
        return predicted

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        correct: npt.NDArray[np.bool_] = self.task.scores(self.probabilities, self.actual)["accuracy"]
        return correct

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the predicted class."""
        confidence: Floats = self.probabilities.max(1)
        return confidence

    @cached_property
    def losses(self) -> Floats:
        """The task's loss of each picture. The mean of the losses is the log loss in metrics.json."""
        return self.task.losses(self.probabilities, self.actual)

    def random(self, correct: bool, n: int, seed: int) -> list[int]:
        """Returns n random pictures, in the order of the table."""
        rows = np.flatnonzero(self.correct == correct)
        rng = np.random.default_rng([seed, int(correct)])
        return sorted(rng.choice(rows, min(n, len(rows)), replace=False).tolist())

    def most_confident(self, correct: bool, label: int, n: int) -> list[int]:
        """Returns the n pictures of class `label` with the highest probabilities among the correct (or the incorrect)
        predictions."""
        rows = np.flatnonzero((self.correct == correct) & (self.actual == label))
        return lowest(rows, -self.confidence[rows], n)

    def most_uncertain(self, n: int) -> list[int]:
        """Returns the n pictures with the smallest difference between the two highest probabilities."""
        top = np.sort(self.probabilities, axis=1)[:, -2:]
        return lowest(np.arange(len(self.probabilities)), top[:, 1] - top[:, 0], n)

    def top_losses(self, n: int) -> list[int]:
        """Returns the n pictures with the highest losses, with correct and incorrect predictions."""
        return lowest(np.arange(len(self.probabilities)), -self.losses, n)


def lowest(rows: npt.NDArray[np.intp], values: Floats, n: int) -> list[int]:
    """Returns the n rows with the lowest values."""
    chosen: list[int] = rows[np.argsort(values, kind="stable")[:n]].tolist()
    return chosen
