"""Folds: which rows belong to the validation set."""

import warnings

import numpy as np
import numpy.typing as npt
import pandas as pd

from stages.runtime.errors import StageError

Ints = npt.NDArray[np.int64]


def get_cv_idxs(n: int, cv_idx: int = 0, valid_pct: float = 0.2, seed: int = 42) -> Ints:
    """Positions of the validation rows: fold `cv_idx` of a permutation of n, exactly as fast.ai 0.7 draws it.

    Uses NumPy's legacy generator, but a local one: 0.7 reseeds the global one. `int(valid_pct * n)` can drop a
    remainder, so that the folds together do not always cover all rows.
    """
    n_valid = int(valid_pct * n)
    order = np.random.RandomState(seed).permutation(n)
    return order[cv_idx * n_valid : (cv_idx + 1) * n_valid]


def stratified_idxs(labels: list[str], cv_idx: int, valid_pct: float, seed: int) -> Ints:
    """As `get_cv_idxs`, but each class keeps its share: fold `cv_idx` within every class, which is shuffled first."""
    table = pd.DataFrame({"label": labels})
    generator = np.random.RandomState(seed)
    picked: list[Ints] = []
    for _, rows in table.groupby("label", sort=True):
        order = generator.permutation(rows.index.to_numpy())
        edges = np.round(np.arange(cv_idx, cv_idx + 2) * valid_pct * len(order)).astype(int)
        picked.append(order[edges[0] : edges[1]])
    return np.sort(np.concatenate(picked))


def group_idxs(groups: list[str], cv_idx: int, valid_pct: float, seed: int) -> Ints:
    """All rows of the groups that `get_cv_idxs` picks from the sorted groups."""
    names = np.unique(groups)
    return np.flatnonzero(np.isin(groups, names[get_cv_idxs(len(names), cv_idx, valid_pct, seed)]))


def stratified_group_idxs(labels: list[str], groups: list[str], cv_idx: int, valid_pct: float, seed: int) -> Ints:
    """Keeps groups together and class shares as even as that allows: one of scikit-learn's round(1 / valid_pct) folds.

    Raises StageError for fewer than two folds, or more than there are groups or pictures of the largest class.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second: import only for this method

    n_folds, codes = round(1 / valid_pct), np.unique(labels, return_inverse=True)[1]
    max_folds = min(len(set(groups)), int(np.bincount(codes).max()))
    if not 2 <= n_folds <= max_folds:
        raise StageError(
            f"split.valid_pct = {valid_pct} makes {n_folds} folds, but stratified groups want 2 to {max_folds} here: "
            f"set it between {1 / max_folds:.2g} and 0.5"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about rare classes, which split itself reports
        folds = list(StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(codes, codes, groups))
    return np.asarray(folds[cv_idx][1] if cv_idx < n_folds else [], np.int64)
