"""Split: who trains, who validates, once and for all stages.

In:   data/ingest/images.parquet
Out:  data/split/{train,valid,test}.csv (id, label, sha256); test has empty labels
Recipe: `get_cv_idxs`; or a stratified fold; or as the folders give it.
"""

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from stages.common.params import Count, Section, Seed, load
from stages.common.stage import StageError, outputs, run

IMAGES, OUT = Path("data/ingest/images.parquet"), Path("data/split")


class SplitParams(Section):
    method: Literal["random", "stratified", "folders"]
    cv_idx: Count
    valid_pct: Annotated[float, Field(gt=0, lt=1)]


def get_cv_idxs(n: int, cv_idx: int = 0, valid_pct: float = 0.2, seed: int = 42) -> npt.NDArray[np.int64]:
    """Positions of the validation rows: fold `cv_idx` of a permutation of n, exactly as fast.ai 0.7 draws it.

    NumPy's legacy generator, but a local one: 0.7 reseeds the global. `int(valid_pct * n)` can drop a remainder, so
    that the folds together do not always cover all rows.
    """
    n_valid = int(valid_pct * n)
    order = np.random.RandomState(seed).permutation(n)
    return order[cv_idx * n_valid : (cv_idx + 1) * n_valid]


def stratified_idxs(labels: list[str], cv_idx: int, valid_pct: float, seed: int) -> npt.NDArray[np.int64]:
    """As `get_cv_idxs`, but each class keeps its share: fold `cv_idx` within every class, which is shuffled first."""
    table = pd.DataFrame({"label": labels})
    generator = np.random.RandomState(seed)
    picked: list[npt.NDArray[np.int64]] = []
    for _, rows in table.groupby("label", sort=True):
        order = generator.permutation(rows.index.to_numpy())
        edges = np.round(np.arange(cv_idx, cv_idx + 2) * valid_pct * len(order)).astype(int)
        picked.append(order[edges[0] : edges[1]])
    return np.sort(np.concatenate(picked))


def split(table: pd.DataFrame, params: SplitParams, seed: int) -> dict[str, pd.DataFrame]:
    """Rows by part. Raises StageError: the fold is outside the data, or a class is missing from train."""
    test = table[table["part"] == "test"]
    rows = table[table["part"] != "test"].reset_index(drop=True)
    if params.method == "folders":
        is_valid = (rows["part"] == "valid").to_numpy()
        if not is_valid.any():
            raise StageError("split.method is folders, but no picture came from a valid/ folder: set it to random")
    else:
        labels = rows["label"].tolist()
        idxs = (
            get_cv_idxs(len(rows), params.cv_idx, params.valid_pct, seed)
            if params.method == "random"
            else stratified_idxs(labels, params.cv_idx, params.valid_pct, seed)
        )
        is_valid = np.isin(np.arange(len(rows)), idxs)
    if not is_valid.any():
        raise StageError(
            f"split.cv_idx = {params.cv_idx} with valid_pct = {params.valid_pct} leaves no valid picture of {len(rows)}"
        )
    train, valid = rows[~is_valid], rows[is_valid]
    if missing := sorted(set(rows["label"]) - set(train["label"])):
        names = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise StageError(
            f"no train picture of {len(missing)} of {rows['label'].nunique()} classes ({names}): take another "
            "split.cv_idx, method or seed; or is ingest.label_column not the label?"
        )
    columns = ["id", "label", "sha256"]
    return {"train": train[columns], "valid": valid[columns], "test": test[columns]}


def main() -> None:
    parts = split(pd.read_parquet(IMAGES), load("split", SplitParams), load("seed", Seed))
    with outputs(OUT) as folder:
        for part, rows in parts.items():
            rows.to_csv(folder / f"{part}.csv", index=False)
    print(", ".join(f"{len(rows):,} {part}" for part, rows in parts.items()))


if __name__ == "__main__":
    run(main)
