"""Kaggle's submission table: ids and predictions."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd


def submission(ids: Sequence[str], columns: Mapping[str, npt.NDArray[np.float64]]) -> pd.DataFrame:
    """Returns a table with the column id and then `columns`, (n,) each, as the task's `submission` returns them."""
    table = pd.DataFrame(columns)
    table.insert(0, "id", np.asarray(ids, dtype=object), allow_duplicates=True)  # a class may be called id
    return table
