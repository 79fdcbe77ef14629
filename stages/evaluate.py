"""evaluate: metrics, what each step gained, and pictures of both.

In:   data/tta/{valid,test}.parquet, the histories of train_head, augment and train_full, data/augment/tta.csv
Out:  data/evaluate/metrics.json    flat keys, on valid: accuracy, log_loss, balanced_accuracy, macro_f1, mcc of the
                                    plain predictions; accuracy_tta, log_loss_tta of the averaged ones
      data/evaluate/steps.csv       step, epochs, accuracy, log_loss, kept_epoch; seconds would make no two runs alike:
                                    they stand in .unfreeze/receipts, in the report and in what stages.show prints
      data/evaluate/confusion.csv   actual, predicted: one row a valid picture; confusion.png
      data/evaluate/submission.csv  id and a probability a class for every test picture; the header alone without them
      data/evaluate/steps.png, history.png
Recipe: looking at the results; Kaggle's submission.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef, recall_score

from stages.dataset.tables.submission import submission
from stages.reporting.figures.plots import figure, figures
from stages.reporting.results.draw import draw_confusion, draw_history, draw_steps
from stages.reporting.results.predictions import Predictions, probabilities
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.stage import run

TRAININGS = ("train_head", "augment", "train_full")


def metrics(valid: pd.DataFrame) -> dict[str, float]:
    """All of scikit-learn's, rounded to 6 places. Means over classes are over those that valid has pictures of."""
    classes, plain = probabilities(valid, "plain")
    _, averaged = probabilities(valid, "tta")
    truth = valid["label"].to_numpy(str)
    present = sorted(set(truth))
    said = {"plain": np.array(classes)[plain.argmax(1)], "tta": np.array(classes)[averaged.argmax(1)]}
    values = {
        "accuracy": (said["plain"] == truth).mean(),
        "log_loss": log_loss(truth, plain, labels=classes),
        "accuracy_tta": (said["tta"] == truth).mean(),
        "log_loss_tta": log_loss(truth, averaged, labels=classes),
        "balanced_accuracy": recall_score(truth, said["plain"], average="macro", labels=present),
        "macro_f1": f1_score(truth, said["plain"], average="macro", labels=present, zero_division=0),
        "mcc": matthews_corrcoef(truth, said["plain"]),
    }
    return {name: round(float(value), 6) for name, value in values.items()}


def steps(histories: dict[str, pd.DataFrame], head_tta: pd.DataFrame, result: dict[str, float]) -> pd.DataFrame:
    """What fast.ai prints by hand: a row a step, measured on valid after its last epoch.

    `kept_epoch` is the one whose weights go on to the next step; 0 is the network as the step before left it. Where
    that is not the last one it has a row of its own.
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
                    "accuracy": part["accuracy"].iloc[-1],
                    "log_loss": part["valid_loss"].iloc[-1],
                    "kept_epoch": kept[0] if kept else None,
                }
            )
        if kept and kept[0] != history["epoch"].iloc[-1]:
            row = histories[name].set_index("epoch").loc[kept[0]]
            rows.append(
                {
                    "step": f"kept: epoch {kept[0]}",
                    "epochs": 0,
                    "accuracy": row["accuracy"],
                    "log_loss": row["valid_loss"],
                    "kept_epoch": kept[0],
                }
            )
        if name == "augment" and (row := head_tta.iloc[0])["n_aug"]:
            rows.append({"step": "head's TTA", "epochs": 0, "accuracy": row["accuracy"], "log_loss": row["valid_loss"]})
    last = {"step": "TTA", "epochs": 0, "accuracy": result["accuracy_tta"], "log_loss": result["log_loss_tta"]}
    return pd.DataFrame([*rows, last]).round(6).astype({"kept_epoch": "Int64"})


def plot(table: pd.DataFrame, histories: dict[str, pd.DataFrame], valid: pd.DataFrame, folder: Path) -> None:
    with figures(folder / "steps.png", "What each step gained (valid)", 2) as axes:
        for ax, column in zip(axes, ("accuracy", "log_loss"), strict=True):
            draw_steps(ax, table, column)
    with figures(folder / "history.png", "Losses by epoch", len(histories)) as axes:
        for ax, (name, history) in zip(axes, histories.items(), strict=True):
            draw_history(ax, history, name)
    with figure(folder / "confusion.png", f"Confusion on {len(valid):,} valid pictures (TTA)") as ax:
        draw_confusion(ax, Predictions.of(valid, "tta"))


def main() -> None:
    valid, test = (pd.read_parquet(stage_folder("tta") / f"{part}.parquet") for part in ("valid", "test"))
    histories = {name: pd.read_csv(stage_folder(name) / "history.csv") for name in TRAININGS}
    result = metrics(valid)
    table = steps(histories, pd.read_csv(stage_folder("augment") / "tta.csv"), result)
    classes, averaged = probabilities(valid, "tta")
    said = np.array(classes)[averaged.argmax(1)]
    with outputs(stage_folder("evaluate")) as folder:
        (folder / "metrics.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        table.to_csv(folder / "steps.csv", index=False)
        pd.DataFrame({"actual": valid["label"], "predicted": said}).to_csv(folder / "confusion.csv", index=False)
        table_of_test = submission(test["id"].tolist(), classes, probabilities(test, "tta")[1])
        table_of_test.to_csv(folder / "submission.csv", index=False)
        plot(table, histories, valid, folder)


if __name__ == "__main__":
    run(main)
