"""evaluate: compute metrics, and accuracy and log loss after each step of the recipe, and plot them.

In:   data/tta/{valid,test}.parquet, the histories of train_head, augment and train_full, data/augment/tta.csv
      (metrics of the head averaged over the cached views; n_aug is 0 if augment.views is 0)
Out:  data/evaluate/metrics.json    flat keys, on valid: accuracy, log_loss, balanced_accuracy, macro_f1, mcc of the
                                    plain predictions; accuracy_tta, log_loss_tta of the averaged ones
      data/evaluate/steps.csv       step, epochs, accuracy, log_loss, kept_epoch; no run times, because they would
                                    change the file in each run: the report, stages.show and the receipts (run
                                    records) in .unfreeze/receipts have them
      data/evaluate/confusion.csv   actual, predicted: one row per valid picture; confusion.png
      data/evaluate/submission.csv  id and one probability per class for every test picture, if there are any
      data/evaluate/steps.png, history.png
Recipe: looking at the results; Kaggle's submission.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from stages.dataset.tables.submission import submission
from stages.reporting.figures.plots import figure, figures
from stages.reporting.results.predictions import Predictions
from stages.reporting.results.result_plots import draw_confusion, draw_history, draw_steps
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import load
from stages.runtime.stage import run
from stages.tasks.registry import AnyTask, TaskName, task_named

TRAININGS = ("train_head", "augment", "train_full")


def metrics(valid: pd.DataFrame, task: AnyTask) -> dict[str, float]:
    """Returns the metrics of the plain predictions and the main metrics of TTA, rounded to 6 places."""
    y = task.parse(valid["label"].tolist(), valid["id"].tolist())
    plain, averaged = (task.metrics(task.read(valid, kind), y) for kind in ("plain", "tta"))
    main = {name: plain[name] for name in task.main_metrics}
    main |= {f"{name}_tta": averaged[name] for name in task.main_metrics}
    return {name: round(value, 6) for name, value in (main | plain).items()}


def steps(
    histories: dict[str, pd.DataFrame],
    head_tta: pd.DataFrame,
    result: dict[str, float],
    main_metrics: Mapping[str, str],
) -> pd.DataFrame:
    """Returns one row per step, measured on valid after the step's last epoch.

    `main_metrics` maps the names of the task's main metrics to the columns of a history. `kept_epoch` is the epoch
    whose weights the next step gets; epoch 0 means the weights of the previous step. If the kept epoch is not the
    last epoch, it has a row of its own. The row "head's TTA" is there if augment.views is more than 0.
    """
    rows: list[dict[str, object]] = []
    for step, name in (("head", "train_head"), ("augment", "augment"), ("full", "train_full")):
        kept = histories[name].query("kept == 1")["epoch"].tolist() if "kept" in histories[name] else []
        history = histories[name].query("epoch > 0")
        size_px = history.get("size_px", pd.Series("", index=history.index)).astype(str)
        for size in dict.fromkeys(size_px):
            part = history[size_px == size]
            rows.append(
                {
                    "step": f"{step} {size} px" if size else step,
                    "epochs": len(part),
                    **{name: part[column].iloc[-1] for name, column in main_metrics.items()},
                    "kept_epoch": kept[0] if kept else None,
                }
            )
        if kept and kept[0] != history["epoch"].iloc[-1]:
            row = histories[name].set_index("epoch").loc[kept[0]]
            rows.append(
                {
                    "step": f"kept: epoch {kept[0]}",
                    "epochs": 0,
                    **{name: row[column] for name, column in main_metrics.items()},
                    "kept_epoch": kept[0],
                }
            )
        if name == "augment" and (row := head_tta.iloc[0])["n_aug"]:
            head_metrics = {name: row[column] for name, column in main_metrics.items()}
            rows.append({"step": "head's TTA", "epochs": 0, **head_metrics})
    last = {"step": "TTA", "epochs": 0, **{name: result[f"{name}_tta"] for name in main_metrics}}
    return pd.DataFrame([*rows, last]).round(6).astype({"kept_epoch": "Int64"})


def plot(
    table: pd.DataFrame, histories: dict[str, pd.DataFrame], valid: pd.DataFrame, task: AnyTask, folder: Path
) -> None:
    with figures(folder / "steps.png", "Metrics after each step (valid)", len(task.main_metrics)) as axes:
        for ax, column in zip(axes, task.main_metrics, strict=True):
            draw_steps(ax, table, column)
    with figures(folder / "history.png", "Losses by epoch", len(histories)) as axes:
        for ax, (name, history) in zip(axes, histories.items(), strict=True):
            draw_history(ax, history, name)
    with figure(folder / "confusion.png", f"Confusion matrix of {len(valid):,} valid pictures (TTA)") as ax:
        draw_confusion(ax, Predictions.of(valid, "tta", task))


def main() -> None:
    valid, test = (pd.read_parquet(stage_folder("tta") / f"{part}.parquet") for part in ("valid", "test"))
    histories = {name: pd.read_csv(stage_folder(name) / "history.csv") for name in TRAININGS}
    task = task_named(load("task", TaskName)).from_columns(valid)
    result = metrics(valid, task)
    table = steps(histories, pd.read_csv(stage_folder("augment") / "tta.csv"), result, task.main_metrics)
    predicted = task.decode(task.read(valid, "tta"))
    with outputs(stage_folder("evaluate")) as folder:
        (folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        table.to_csv(folder / "steps.csv", index=False)
        pd.DataFrame({"actual": valid["label"], "predicted": predicted}).to_csv(folder / "confusion.csv", index=False)
        test_table = submission(test["id"].tolist(), task.submission(task.read(test, "tta")))
        test_table.to_csv(folder / "submission.csv", index=False)
        plot(table, histories, valid, task, folder)


if __name__ == "__main__":
    run(main)
