"""Predictions with their truth, and which pictures of them are worth looking at (fast.ai's lesson 1)."""

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
    """`truth` int64 (n,), `p` float64 (n, classes). Lists of pictures are row numbers; equals keep their order."""

    task: AnyTask
    truth: Ints
    p: Floats

    @classmethod
    def of(cls, table: pd.DataFrame, kind: str, task: AnyTask) -> "Predictions":
        """From data/tta/valid.parquet; `kind` is plain or tta."""
        truth = task.parse(table["label"].tolist(), table["id"].tolist())
        return cls(task, truth, task.read(table, kind))

    @property
    def classes(self) -> list[str]:
        return self.task.classes

    @cached_property
    def said(self) -> Ints:
        """The likeliest class of each."""
        said: Ints = self.p.argmax(1)
        return said

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = self.task.scores(self.p, self.truth)["accuracy"]
        return right

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the class that is said."""
        confidence: Floats = self.p.max(1)
        return confidence

    @cached_property
    def losses(self) -> Floats:
        """The task's, of each picture: the mean is the log loss of metrics.json."""
        return self.task.losses(self.p, self.truth)

    def random(self, right: bool, n: int, seed: int) -> list[int]:
        """n at random, in the table's order."""
        rows = np.flatnonzero(self.right == right)
        rng = np.random.default_rng([seed, int(right)])
        return sorted(rng.choice(rows, min(n, len(rows)), replace=False).tolist())

    def most(self, right: bool, label: int, n: int) -> list[int]:
        """Of the pictures that are `label`: those said right, or wrong, with the highest probability."""
        rows = np.flatnonzero((self.right == right) & (self.truth == label))
        return first(rows, -self.confidence[rows], n)

    def most_uncertain(self, n: int) -> list[int]:
        """Smallest margin between the two likeliest classes; of two classes the one nearest to one half."""
        top = np.sort(self.p, axis=1)[:, -2:]
        return first(np.arange(len(self.p)), top[:, 1] - top[:, 0], n)

    def top_losses(self, n: int) -> list[int]:
        """The highest losses, right or wrong."""
        return first(np.arange(len(self.p)), -self.losses, n)


def first(rows: npt.NDArray[np.intp], key: Floats, n: int) -> list[int]:
    """n rows with the lowest key."""
    found: list[int] = rows[np.argsort(key, kind="stable")[:n]].tolist()
    return found
