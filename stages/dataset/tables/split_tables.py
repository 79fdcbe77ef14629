"""The rows that training stages read: {train,valid,test}.csv of the stage split, with columns id, label, sha256."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Rows:
    """One part of the split, in file order; labels are empty strings in test."""

    ids: list[str]
    labels: list[str]
    sha256s: list[str]


def read_rows(folder: Path, part: str) -> Rows:
    """Reads one table. `folder`: the output folder of the stage split; `part`: train, valid or test."""
    table = pd.read_csv(folder / f"{part}.csv", dtype=str, keep_default_na=False)
    return Rows(table["id"].tolist(), table["label"].tolist(), table["sha256"].tolist())
