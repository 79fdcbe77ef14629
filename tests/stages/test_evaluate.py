"""Evaluate: metrics of known predictions, and a row for each step."""

import json

import numpy as np
import pandas as pd
import pytest

from stages.evaluate import metrics, steps
from stages.tasks.single_label import SingleLabel
from tests.conftest import Project


def test_metrics_of_known_predictions() -> None:
    valid = pd.DataFrame(
        {
            "id": list("wxyz"),
            "label": ["a", "a", "b", "b"],
            "plain:a": [0.9, 0.2, 0.6, 0.1],
            "plain:b": [0.1, 0.8, 0.4, 0.9],
            "tta:a": [0.8, 0.6, 0.7, 0.2],
            "tta:b": [0.2, 0.4, 0.3, 0.8],
        }
    )
    assert metrics(valid, SingleLabel.from_columns(valid)) == pytest.approx(
        {
            "accuracy": 0.5,
            "log_loss": -np.log([0.9, 0.2, 0.4, 0.9]).mean(),
            "accuracy_tta": 0.75,
            "log_loss_tta": -np.log([0.8, 0.6, 0.3, 0.8]).mean(),
            "balanced_accuracy": 0.5,
            "macro_f1": 0.5,
            "mcc": 0.0,
        },
        abs=1e-6,
    )


def head_tta(n_aug: int) -> pd.DataFrame:
    return pd.DataFrame([{"n_aug": n_aug, "valid_loss": 0.75, "accuracy": 0.65}])


def test_a_row_for_each_step_and_size() -> None:
    head = pd.DataFrame({"epoch": [1, 2], "accuracy": [0.5, 0.6], "valid_loss": [0.9, 0.8]})
    full = pd.DataFrame(
        {
            "epoch": [0, 1, 2, 3],
            "accuracy": [0.1, 0.7, 0.8, 0.9],
            "valid_loss": [0.9, 0.5, 0.4, 0.3],
            "size_px": [224, 128, 128, 224],
            "kept": [0, 0, 1, 0],
        }
    )
    table = steps(
        {"train_head": head, "augment": head.tail(1), "train_full": full},
        head_tta(0),
        {"accuracy_tta": 0.95, "log_loss_tta": 0.2},
        SingleLabel.main_metrics,
    )
    assert table["step"].tolist() == ["head", "augment", "full 128 px", "full 224 px", "kept: epoch 2", "TTA"]
    assert table["epochs"].tolist() == [2, 1, 2, 1, 0, 0]
    assert table["accuracy"].tolist() == [0.6, 0.6, 0.8, 0.9, 0.8, 0.95]
    assert table["log_loss"].tolist() == [0.8, 0.8, 0.4, 0.3, 0.4, 0.2]
    assert table["kept_epoch"].dropna().tolist() == [2, 2, 2]


def test_a_row_for_the_heads_tta_where_there_are_views() -> None:
    history = pd.DataFrame({"epoch": [1], "accuracy": [0.5], "valid_loss": [0.9]})
    names = ("train_head", "augment", "train_full")
    result = {"accuracy_tta": 0.95, "log_loss_tta": 0.2}
    table = steps(dict.fromkeys(names, history), head_tta(4), result, SingleLabel.main_metrics)
    assert table["step"].tolist() == ["head", "augment", "head's TTA", "full", "TTA"]
    assert (table["accuracy"][2], table["log_loss"][2]) == (0.65, 0.75)


def test_the_files_of_a_run(reproduced: Project) -> None:
    folder = reproduced.folder / "data/evaluate"
    assert set(json.loads((folder / "metrics.json").read_text(encoding="utf-8"))) == {
        "accuracy", "log_loss", "accuracy_tta", "log_loss_tta", "balanced_accuracy", "macro_f1", "mcc",
    }  # fmt: skip
    table = pd.read_csv(folder / "steps.csv")
    assert list(table.columns) == ["step", "epochs", "accuracy", "log_loss", "kept_epoch"]
    assert table["step"].tolist() == ["head", "augment", "full 32 px", "full 40 px", "kept: epoch 1", "TTA"]
    submission = pd.read_csv(folder / "submission.csv")
    assert list(submission.columns) == ["id", "blue", "green", "red"]
    assert submission["id"].tolist() == ["t0", "t1", "t2", "t3"]
    np.testing.assert_allclose(submission.drop(columns="id").sum(axis=1), 1, atol=1e-5)
    valid = pd.read_csv(reproduced.folder / "data/split/valid.csv")
    assert pd.read_csv(folder / "confusion.csv")["actual"].tolist() == valid["label"].tolist()


def test_the_submission_is_of_the_averaged_predictions(reproduced: Project) -> None:
    submission = pd.read_csv(reproduced.folder / "data/evaluate/submission.csv").drop(columns="id")
    test = pd.read_parquet(reproduced.folder / "data/tta/test.parquet")
    averaged, plain = (
        test[[f"{kind}:{name}" for name in submission.columns]].to_numpy(np.float64) for kind in ("tta", "plain")
    )
    np.testing.assert_allclose(submission, averaged / averaged.sum(axis=1, keepdims=True), atol=1e-6)
    assert np.abs(averaged - plain).max() > 1e-4
