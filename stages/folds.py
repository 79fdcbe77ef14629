"""folds: the recipe's results over several folds, and the ensemble of their models: `folds 0 1 2 ...`.

In:   data/folds/<fold>/{tta,evaluate}, the results of pipelines/folds/dvc.yaml
Out:  data/folds/summary.json    flat keys: n_folds; for each metric <name>_mean and <name>_sd (n - 1) over the folds;
                                 for all folds' valid pictures, each predicted by the model not trained on it: n_pooled,
                                 accuracy_tta_pooled, log_loss_tta_pooled, with 95 % limits _low and _high
      data/folds/folds.csv       one row per fold; spread.png
      data/folds/submission.csv  id and one probability per class for every test picture: mean over the folds (TTA)
Recipe: the fast.ai course's five folds, and their ensemble by soft voting. The ensemble has no score, because all
        models but one were trained on each labelled picture. The pooled metrics are those of a single model. The
        ensemble should be no worse, but only the labels of test/, which the recipe never reads, could show that.
"""

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from stages.dataset.tables.submission import submission
from stages.reporting.figures.plots import figures
from stages.reporting.results.predictions import Predictions
from stages.reporting.results.scores import Z95, wilson
from stages.reporting.results.side_by_side import RunResult, as_table, read_runs
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import load
from stages.runtime.stage import run
from stages.tasks.registry import AnyTask, TaskName, task_named


def spread(rows: pd.DataFrame) -> dict[str, float]:
    """Returns the mean and standard deviation (n - 1) of every metric."""
    columns = [column for column in rows if column not in ("fold", "n_valid")]
    return {
        f"{column}_{name}": float(value)
        for column in columns
        for name, value in (("mean", rows[column].mean()), ("sd", rows[column].std()))
    }


def pooled(folds: Sequence[RunResult]) -> dict[str, float]:
    """Returns metrics over the valid pictures of all folds. Raises StageError if a picture is valid in two folds."""
    ids = pd.concat([fold.valid["id"] for fold in folds])
    if (repeated := ids[ids.duplicated()]).size:
        raise StageError(
            f"{len(repeated):,} pictures are valid in more than one fold (the first is {repeated.iloc[0]}): name each "
            "fold once, and set split.method to random or stratified: with folders all folds are the same"
        )
    predictions = [Predictions.of(fold.valid, "tta", task_of(fold.valid)) for fold in folds]
    correct, losses = (np.concatenate([getattr(fold, name) for fold in predictions]) for name in ("correct", "losses"))
    n, accuracy, loss = len(correct), float(correct.mean()), float(losses.mean())
    low, high = wilson(int(correct.sum()), n)
    half_width = Z95 * float(losses.std(ddof=1)) / math.sqrt(n)
    return {
        "n_pooled": n,
        "accuracy_tta_pooled": accuracy, "accuracy_tta_pooled_low": low, "accuracy_tta_pooled_high": high,
        "log_loss_tta_pooled": loss, "log_loss_tta_pooled_low": loss - half_width,
        "log_loss_tta_pooled_high": loss + half_width,
    }  # fmt: skip


def vote(folds: Sequence[RunResult]) -> pd.DataFrame:
    """Returns id and one column per class: the mean of the models' probabilities.

    Raises StageError if the test pictures or classes of the folds differ.
    """
    ids, task = folds[0].test["id"], task_of(folds[0].test)
    for fold in folds:
        if task_of(fold.test) != task or fold.test["id"].tolist() != ids.tolist():
            raise StageError(f"{fold.folder} has other test pictures or classes than {folds[0].folder}")
    mean = np.mean([task.read(fold.test, "tta") for fold in folds], axis=0)
    return submission(ids.tolist(), task.submission(mean))


def task_of(table: pd.DataFrame) -> AnyTask:
    return task_named(load("task", TaskName)).from_columns(table)


def plot(rows: pd.DataFrame, path: Path) -> None:
    with figures(path, f"{len(rows)} folds (valid, TTA)", 2) as axes:
        for ax, column in zip(axes, ("accuracy_tta", "log_loss_tta"), strict=True):
            ax.plot(rows["fold"], rows[column], marker="o", linestyle="none")
            mean, sd = rows[column].mean(), rows[column].std()
            ax.axhline(mean, linestyle="--", label=f"mean {mean:.4f}, sd {sd:.4f}")
            ax.axhspan(mean - sd, mean + sd, alpha=0.15)
            ax.set(xlabel="fold", ylabel=column)
            ax.margins(0.15)
            ax.legend()


def main() -> None:
    folds = read_runs(stage_folder("folds"), sys.argv[1:])
    rows = as_table(folds, "fold")
    summary = {"n_folds": len(folds)} | spread(rows) | pooled(folds)
    summary = {key: round(value, 6) for key, value in summary.items()}
    voted = vote(folds)
    with outputs(stage_folder("folds")) as folder:
        (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        rows.to_csv(folder / "folds.csv", index=False)
        voted.to_csv(folder / "submission.csv", index=False)
        plot(rows, folder / "spread.png")
    print(rows[["fold", "n_valid", "accuracy_tta", "log_loss_tta"]].to_string(index=False))
    for key, name in (("accuracy_tta", "accuracy"), ("log_loss_tta", "log loss")):
        low, high = (summary[f"{key}_pooled_{end}"] for end in ("low", "high"))
        print(
            f"{name}, TTA: mean {summary[f'{key}_mean']:.4f}, sd {summary[f'{key}_sd']:.4f}; of all "
            f"{summary['n_pooled']:,} pictures {summary[f'{key}_pooled']:.4f} (95 %: {low:.4f} to {high:.4f})"
        )
    if len(voted):
        where = stage_folder("folds") / "submission.csv"
        print(f"{len(voted):,} test pictures predicted by the ensemble of {len(folds)} models: {where}")


if __name__ == "__main__":
    run(main, with_arguments=True)
