"""Predictions with their truth, and which pictures of them are worth looking at (fast.ai's lesson 1)."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


def probabilities(table: pd.DataFrame, kind: str) -> tuple[list[str], Floats]:
    """(classes, float64 (n, classes)) of the columns `kind:<class>`, rows scaled to sum to 1 in float64."""
    columns = [column for column in table if str(column).startswith(f"{kind}:")]
    values = table[columns].to_numpy(np.float64)
    return [str(column).removeprefix(f"{kind}:") for column in columns], values / values.sum(axis=1, keepdims=True)


@dataclass(frozen=True)
class Predictions:
    """`truth` int64 (n,), `p` float64 (n, classes). Lists of pictures are row numbers; equals keep their order."""

    classes: list[str]
    truth: Ints
    p: Floats

    @classmethod
    def of(cls, table: pd.DataFrame, kind: str) -> "Predictions":
        """From data/tta/valid.parquet; `kind` is plain or tta."""
        classes, p = probabilities(table, kind)
        place = {label: number for number, label in enumerate(classes)}
        return cls(classes, np.array([place[label] for label in table["label"]], np.int64), p)

    @cached_property
    def said(self) -> Ints:
        """The likeliest class of each."""
        said: Ints = self.p.argmax(1)
        return said

    @cached_property
    def right(self) -> npt.NDArray[np.bool_]:
        right: npt.NDArray[np.bool_] = self.said == self.truth
        return right

    @cached_property
    def confidence(self) -> Floats:
        """Probability of the class that is said."""
        confidence: Floats = self.p.max(1)
        return confidence

    @cached_property
    def losses(self) -> Floats:
        """-ln p(truth), p clipped at float64's epsilon: the mean is scikit-learn's log loss, as in metrics.json."""
        picked = self.p[np.arange(len(self.truth)), self.truth]
        losses: Floats = -np.log(picked.clip(np.finfo(np.float64).eps, 1))
        return losses

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
