"""Reads the results of several runs for comparison: folds, backbones."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from stages.runtime.errors import StageError

BATCHNORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class RunResult:
    """The result of a run in `folder`. `metrics`: the numbers of evaluate; `valid`, `test`: the tables of tta."""

    folder: Path
    metrics: dict[str, float]
    valid: pd.DataFrame
    test: pd.DataFrame

    @property
    def name(self) -> str:
        return self.folder.name


def read_runs(folder: Path, names: Sequence[str]) -> list[RunResult]:
    """Reads the runs in `folder/<name>`, in the order of `names`. Raises StageError for fewer than two names."""
    if len(names) < 2:
        raise StageError(f"expected the names of two folders or more below {folder}, got {' '.join(names) or 'none'}")
    return [read_run(folder / name) for name in names]


def read_run(folder: Path) -> RunResult:
    metrics = json.loads((folder / "evaluate/metrics.json").read_text(encoding="utf-8"))
    valid, test = (pd.read_parquet(folder / f"tta/{part}.parquet") for part in ("valid", "test"))
    return RunResult(
        folder, {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}, valid, test
    )


def as_table(runs: Sequence[RunResult], first_column: str) -> pd.DataFrame:
    """Returns one row per run, with its name, `n_valid` and the metrics."""
    return pd.DataFrame([{first_column: run.name, "n_valid": len(run.valid)} | run.metrics for run in runs])


def n_parameters(model: Path) -> int:
    """Returns the number of parameters in a model file, without the running statistics of BatchNorm layers.

    Only the header of the file is read.
    """
    with safe_open(model, "np") as file:
        keys = [key for key in file.keys() if not key.endswith(BATCHNORM_STATISTICS)]  # noqa: SIM118
        return sum(prod(file.get_slice(key).get_shape()) for key in keys)
