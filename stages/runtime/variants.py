"""What `variant` left of several runs: read once more, side by side."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from stages.runtime.errors import StageError


@dataclass(frozen=True)
class Variant:
    """`metrics`: flat; `about`: of variant.json; `valid`, `test`: of tta."""

    name: str
    metrics: dict[str, float]
    about: dict[str, Any]
    valid: pd.DataFrame
    test: pd.DataFrame


def read(folder: Path, names: Sequence[str]) -> list[Variant]:
    """In their order. Raises StageError: there are fewer than two names."""
    if len(names) < 2:
        raise StageError(f"expected the names of two folders or more below {folder}, got {' '.join(names) or 'none'}")
    return [read_one(folder / name) for name in names]


def read_one(folder: Path) -> Variant:
    metrics, about = (json.loads((folder / f"{name}.json").read_text()) for name in ("metrics", "variant"))
    valid, test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("valid", "test"))
    numbers = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
    return Variant(folder.name, numbers, about, valid, test)


def table(variants: Sequence[Variant], first: str) -> pd.DataFrame:
    """A row a variant: its name as column `first`, pictures, metrics."""
    return pd.DataFrame([{first: one.name, "n_valid": len(one.valid)} | one.metrics for one in variants])
