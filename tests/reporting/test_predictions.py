"""Known results for predictions that were written by hand."""

import numpy as np
import pandas as pd
import pytest

from stages.evaluate import metrics
from stages.reporting.results.predictions import Predictions
from stages.reporting.results.scores import calibration, class_scores, confusion, mean_interval, most_confused, wilson
from stages.tasks.single_label import SingleLabel

CLASSES = ["cat", "dog", "pug"]
TASK, TWO = SingleLabel.from_labels(CLASSES), SingleLabel.from_labels(["a", "b"])
ROWS = [  # truth, probabilities
    ("cat", [0.90, 0.05, 0.05]),  # 0 right
    ("cat", [0.60, 0.30, 0.10]),  # 1 right
    ("cat", [0.10, 0.80, 0.10]),  # 2 wrong: dog
    ("cat", [0.02, 0.97, 0.01]),  # 3 wrong: dog, with the highest probability
    ("dog", [0.20, 0.52, 0.28]),  # 4 right
    ("dog", [0.00, 1.00, 0.00]),  # 5 right
    ("dog", [0.34, 0.33, 0.33]),  # 6 wrong: cat, with the lowest probability
    ("pug", [0.05, 0.05, 0.90]),  # 7 right, with the probability of row 0
    ("pug", [0.05, 0.52, 0.43]),  # 8 wrong: dog
]


@pytest.fixture
def predictions() -> Predictions:
    columns = {f"tta:{name}": np.array([row[1][i] for row in ROWS], np.float32) for i, name in enumerate(CLASSES)}
    return Predictions.of(pd.DataFrame({"id": range(9), "label": [row[0] for row in ROWS]} | columns), "tta", TASK)


def test_what_is_said(predictions: Predictions) -> None:
    assert predictions.classes == CLASSES
    assert predictions.predicted.tolist() == [0, 0, 1, 1, 1, 1, 0, 2, 1]
    assert predictions.correct.tolist() == [True, True, False, False, True, True, False, True, False]
    assert predictions.losses[3] == pytest.approx(-np.log(0.02))
    assert predictions.losses[5] == 0


def test_the_mean_of_the_losses_is_the_log_loss_of_the_metrics() -> None:
    """Also for wrong predictions whose probability of the actual class is far below float32's epsilon, or 0."""
    columns = {"tta:a": np.array([0.9, 1e-12, 0.0], np.float32), "tta:b": np.array([0.1, 1.0, 1.0], np.float32)}
    valid = pd.DataFrame({"id": range(3), "label": ["a", "a", "a"]} | columns)
    plain = valid.rename(columns=lambda name: name.replace("tta", "plain"))
    both = pd.concat([valid, plain[["plain:a", "plain:b"]]], axis=1)
    losses = Predictions.of(valid, "tta", TWO).losses
    assert losses.mean() == pytest.approx(metrics(both, TWO)["log_loss_tta"], abs=1e-5)


def test_most_correct_and_most_incorrect(predictions: Predictions) -> None:
    assert [predictions.most_confident(True, label, 4) for label in range(3)] == [[0, 1], [5, 4], [7]]
    assert [predictions.most_confident(False, label, 4) for label in range(3)] == [[3, 2], [6], [8]]
    assert predictions.most_confident(False, 0, 1) == [3]


def test_most_uncertain_has_the_smallest_margin(predictions: Predictions) -> None:
    assert predictions.most_uncertain(3) == [6, 8, 4]


def test_of_two_classes_the_most_uncertain_are_nearest_to_one_half() -> None:
    p = np.array([0.9, 0.45, 0.52, 0.1, 0.6])
    two = Predictions(TWO, np.zeros(5, np.int64), np.stack([p, 1 - p], axis=1))
    assert two.most_uncertain(5) == np.argsort(abs(p - 0.5)).tolist()


def test_equals_keep_their_order() -> None:
    same = Predictions(TWO, np.zeros(400, np.int64), np.tile([0.3, 0.7], (400, 1)))
    assert same.top_losses(30) == same.most_uncertain(30) == same.most_confident(False, 0, 30) == list(range(30))


def test_top_losses(predictions: Predictions) -> None:
    assert predictions.top_losses(3) == [3, 2, 6]


def test_random_ones_are_right_or_wrong_and_the_same_for_a_seed(predictions: Predictions) -> None:
    assert predictions.random(True, 99, 1) == [0, 1, 4, 5, 7]
    assert predictions.random(False, 99, 1) == [2, 3, 6, 8]
    some = predictions.random(True, 2, 1)
    assert set(some) < {0, 1, 4, 5, 7}
    assert some == predictions.random(True, 2, 1)
    many = Predictions(TWO, np.arange(200) % 2, np.tile([0.7, 0.3], (200, 1)))
    assert [row // 2 for row in many.random(True, 20, 1)] != [row // 2 for row in many.random(False, 20, 1)]
    assert {tuple(predictions.random(True, 2, seed)) for seed in range(20)} > {tuple(some)}


def test_confusion_and_the_most_confused(predictions: Predictions) -> None:
    assert confusion(predictions).tolist() == [[2, 2, 0], [1, 2, 0], [0, 1, 1]]
    assert most_confused(predictions, 9) == [("cat", "dog", 2, 4), ("dog", "cat", 1, 3), ("pug", "dog", 1, 2)]
    assert most_confused(predictions, 1) == [("cat", "dog", 2, 4)]


def test_a_row_for_each_class_the_worst_first(predictions: Predictions) -> None:
    table = class_scores(predictions, {"cat": 7, "dog": 8})
    assert table["label"].tolist() == ["cat", "pug", "dog"]
    assert table["train"].tolist() == [7, 0, 8]
    assert table["valid"].tolist() == [4, 2, 3]
    assert table["recall"].tolist() == pytest.approx([2 / 4, 1 / 2, 2 / 3])
    assert table["precision"].tolist() == pytest.approx([2 / 3, 1, 2 / 5])
    assert table["log_loss"][1] == pytest.approx(-(np.log(0.9) + np.log(0.43)) / 2, rel=1e-6)


def test_a_class_that_nobody_is_or_says_has_no_figures() -> None:
    one = Predictions(TWO, np.zeros(2, np.int64), np.array([[0.9, 0.1], [0.8, 0.2]]))
    table = class_scores(one, {}).set_index("label")
    assert table.loc["b", ["recall", "precision", "log_loss"]].isna().all()
    assert table.loc["a", "recall"] == 1


def test_calibration(predictions: Predictions) -> None:
    bins, error = calibration(predictions, n_bins=2)
    assert bins[["low", "high", "count"]].to_numpy().tolist() == [[0, 0.5, 1], [0.5, 1, 8]]
    assert bins["accuracy"].tolist() == [0, 5 / 8]
    sure = np.mean([0.9, 0.6, 0.8, 0.97, 0.52, 1, 0.9, 0.52])
    assert bins["confidence"].tolist() == pytest.approx([0.34, sure], rel=1e-6)
    assert error == pytest.approx((0.34 + 8 * abs(5 / 8 - sure)) / 9, rel=1e-6)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(8, 10, 0.490, 0.943), (0, 10, 0.0, 0.278), (10, 10, 0.722, 1.0), (463, 524, 0.853, 0.908)],
)
def test_wilson_as_in_the_tables(k: int, n: int, low: float, high: float) -> None:
    assert wilson(k, n) == pytest.approx((low, high), abs=5e-4)


def test_the_interval_of_a_mean_covers_it() -> None:
    values = np.random.default_rng(0).exponential(1, 400)
    low, high = mean_interval(values, seed=1)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.05)
    assert mean_interval(values, seed=1) == (low, high)
