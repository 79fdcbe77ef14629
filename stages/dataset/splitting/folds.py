"""Folds: which rows belong to the validation set."""

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd

from stages.runtime.errors import StageError

Ints = npt.NDArray[np.int64]


def get_cv_idxs(n: int, cv_idx: int = 0, valid_pct: float = 0.2, seed: int = 42) -> Ints:
    """Returns the positions of the validation rows: fold `cv_idx` of a permutation of n, as fast.ai 0.7 draws it.

    The function uses a local generator of NumPy's legacy type, while fast.ai 0.7 reseeds the global generator.
    `valid_pct * n` is rounded down, so that the folds together do not always cover all rows.
    """
    n_valid = int(valid_pct * n)
    order = np.random.RandomState(seed).permutation(n)
    return order[cv_idx * n_valid : (cv_idx + 1) * n_valid]


def stratified_idxs(labels: list[str], cv_idx: int, valid_pct: float, seed: int) -> Ints:
    """Returns the positions of fold `cv_idx` of every class, so that each class keeps its share. Each class is shuffled
    before it is divided into folds."""
    table = pd.DataFrame({"label": labels})
    generator = np.random.RandomState(seed)
    fold_rows: list[Ints] = []
    for _, rows in table.groupby("label", sort=True):
        order = generator.permutation(rows.index.to_numpy())
        edges = np.round(np.arange(cv_idx, cv_idx + 2) * valid_pct * len(order)).astype(int)
        fold_rows.append(order[edges[0] : edges[1]])
    return np.sort(np.concatenate(fold_rows))


def group_idxs(groups: list[str], cv_idx: int, valid_pct: float, seed: int) -> Ints:
    """Returns the positions of all rows of the groups that `get_cv_idxs` picks from the sorted groups."""
    names = np.unique(groups)
    return np.flatnonzero(np.isin(groups, names[get_cv_idxs(len(names), cv_idx, valid_pct, seed)]))


def stratified_group_idxs(labels: list[str], groups: list[str], cv_idx: int, valid_pct: float, seed: int) -> Ints:
    """Returns the positions of one of scikit-learn's round(1 / valid_pct) folds.

    The folds keep groups together and the shares of the classes as even as the groups allow.

    Raises StageError for fewer than two folds, or for more folds than groups or than pictures of the largest class.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second: import only for this method

    n_folds, codes = round(1 / valid_pct), np.unique(labels, return_inverse=True)[1]
    max_folds = min(len(set(groups)), int(np.bincount(codes).max()))
    if not 2 <= n_folds <= max_folds:
        raise StageError(
            f"split.valid_pct = {valid_pct} makes {n_folds} folds, but these stratified groups allow 2 to {max_folds}: "
            f"set it between {1 / max_folds:.2g} and 0.5"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the stage split reports rare classes itself
        folds = list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(codes, codes, groups))
    return np.asarray(folds[cv_idx][1] if cv_idx < n_folds else [], np.int64)
