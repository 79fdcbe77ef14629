"""Kaggle's submission: an id and a probability a class."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd


def submission(ids: Sequence[str], classes: list[str], probabilities: npt.NDArray[np.floating]) -> pd.DataFrame:
    """Columns: id, then the classes; `probabilities` (n, classes), rows scaled to sum to 1 in float64, 6 places."""
    values = probabilities.astype(np.float64)
    table = pd.DataFrame(values / values.sum(axis=1, keepdims=True), columns=classes).round(6)
    table.insert(0, "id", np.asarray(ids, dtype=object), allow_duplicates=True)  # a class may be called id
    return table
