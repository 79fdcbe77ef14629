"""The task of single labels, by hand and against torch and scikit-learn."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from sklearn.metrics import f1_score, log_loss, matthews_corrcoef, recall_score
from torch.nn import functional as F

from stages.runtime.errors import StageError
from stages.tasks.registry import TASKS, task_named
from stages.tasks.single_label import SingleLabel
from stages.training.compute.task import Task

LABELS, IDS = ["dog", "cat", "dog", "pug"], ["a", "b", "c", "d"]
TASK: Task = SingleLabel.from_labels(LABELS)  # mypy: it keeps the contract
P = np.array([[0.2, 0.7, 0.1], [0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8]], np.float32)


def outputs() -> torch.Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


def test_classes_are_sorted_and_targets_are_their_places() -> None:
    task = SingleLabel.from_labels(LABELS)
    assert task.classes == ["cat", "dog", "pug"]
    y = task.parse(LABELS, IDS)
    assert (y.tolist(), y.dtype.name, task.n_outputs) == ([1, 0, 1, 2], "int64", 3)
    assert task.parse([], []).dtype.name == "int64"
    assert task.decode(np.eye(3)[y]) == LABELS
    assert task.strata(LABELS) == LABELS
    assert list(task.counts(LABELS).items()) == [("cat", 1), ("dog", 2), ("pug", 1)]


def test_a_label_that_train_has_not_is_named_with_its_row() -> None:
    known = r"none of the 3 classes of train \(cat, dog, pug\)"
    with pytest.raises(StageError, match=f"row 3, c: the label `owl` is {known}"):
        TASK.parse(["dog", "cat", "owl"], IDS[:3])


@pytest.mark.parametrize("classes", [["a"], ["a", "a"], "ab", [1, 2]])
def test_classes_that_tell_nothing_apart_are_refused(classes: object) -> None:
    with pytest.raises(ValidationError):
        SingleLabel.model_validate({"name": "single_label", "classes": classes})


def test_it_comes_back_from_a_file_and_from_the_columns_of_a_table() -> None:
    task = SingleLabel.from_labels(["tta:odd", "id", "plain:odd"])
    assert SingleLabel.model_validate_json(task.model_dump_json()) == task
    table = pd.DataFrame({"id": ["x"], "label": ["id"]} | task.columns("plain", P[:1]) | task.columns("tta", P[1:2]))
    assert list(table)[2:5] == ["plain:id", "plain:plain:odd", "plain:tta:odd"]
    assert SingleLabel.from_columns(table) == task
    for kind, row in (("plain", P[0]), ("tta", P[1])):
        read = task.read(table, kind)
        assert read.dtype.name == "float64"
        np.testing.assert_allclose(read[0], row, rtol=1e-6)
        assert read.sum() == pytest.approx(1, abs=1e-15)


def test_the_loss_is_torchs_cross_entropy() -> None:
    x, y = outputs(), torch.tensor([1, 0, 1, 2])
    assert torch.equal(TASK.loss(x, y), F.cross_entropy(x, y))
    assert torch.equal(TASK.loss(x, y, label_smoothing=0.1), F.cross_entropy(x, y, label_smoothing=0.1))
    log_p = x.log_softmax(1)[torch.arange(4), y]
    weight = torch.tensor([1.0, 0.0, 3.0, 0.0])
    assert TASK.loss(x, y, weight).item() == pytest.approx((-log_p[0] - 3 * log_p[2]).item() / 4, rel=1e-6)
    assert TASK.loss(x, y, torch.ones(4)).item() == pytest.approx(TASK.loss(x, y).item(), rel=1e-6)
    assert TASK.loss(x, y, torch.zeros(4)).item() == 0
    halved = x.bfloat16()  # as autocast gives them: the sum over classes is float32's all the same
    assert torch.equal(TASK.loss(halved, y), F.cross_entropy(halved.float(), y))


def test_who_knows_nothing_has_the_loss_of_equal_outputs() -> None:
    equal = TASK.loss(torch.zeros(4, 3), torch.tensor([1, 0, 1, 2])).item()
    assert pytest.approx(equal, rel=1e-6) == TASK.uninformed_loss == math.log(3)


def test_predictions_are_probabilities_and_the_losses_are_of_each() -> None:
    x, y = outputs(), np.array([1, 0, 1, 2])
    p = TASK.predict(x.bfloat16())
    assert p.dtype == torch.float32
    assert torch.equal(p, x.bfloat16().float().softmax(1))
    losses = TASK.losses(P, y)
    np.testing.assert_allclose(losses, -np.log([0.7, 0.5, 0.3, 0.8]), rtol=1e-6)
    assert losses.dtype.name == "float64"
    assert TASK.scores(P, y)["accuracy"].tolist() == [True, True, False, True]
    assert TASK.output_to_explain(torch.from_numpy(P)).tolist() == [1, 0, 0, 2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_loss_of_a_certain_error_is_that_of_the_smallest_step(dtype: type[np.floating]) -> None:
    p = np.array([[1.0, 0.0, 0.0]], dtype)
    assert TASK.losses(p, np.array([1]))[0] == pytest.approx(-math.log(np.finfo(dtype).eps))
    assert TASK.losses(p, np.array([0]))[0] == 0


def test_metrics_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p, y = rng.dirichlet([1, 1, 1], 60), rng.integers(0, 2, 60)  # no item of the last class
    said = p.argmax(1)
    assert TASK.metrics(p, y) == pytest.approx(
        {
            "accuracy": (said == y).mean(),
            "log_loss": log_loss(y, p, labels=[0, 1, 2]),
            "balanced_accuracy": recall_score(y, said, average=None, labels=[0, 1]).mean(),
            "macro_f1": f1_score(y, said, average=None, labels=[0, 1]).mean(),
            "mcc": matthews_corrcoef(y, said),
        }
    )
    assert set(TASK.main_metrics) <= set(TASK.metrics(p, y))


def test_baselines_are_what_one_answer_for_all_reaches_at_best() -> None:
    y = np.array([0, 0, 0, 1, 2, 2])
    shares = np.tile([3 / 6, 1 / 6, 2 / 6], (6, 1))
    found, best = TASK.baselines(y), TASK.metrics(shares, y)
    assert found == pytest.approx({name: best[name] for name in TASK.main_metrics})
    assert TASK.baselines(np.zeros(4, np.int64)) == {"accuracy": 1, "log_loss": 0}


def test_what_predict_writes_and_a_submission() -> None:
    answer = pd.DataFrame(TASK.answer(P))
    assert list(answer) == ["predicted", "probability", "probability:cat", "probability:dog", "probability:pug"]
    assert answer["predicted"].tolist() == ["dog", "cat", "cat", "pug"]
    assert answer["probability"].tolist() == P.max(1).tolist()
    rows = TASK.submission(np.array([[0.2, 0.2, 0.2], [1e-9, 0.5, 0.5]], np.float32))
    assert {name: column.tolist() for name, column in rows.items()} == {
        "cat": [0.333333, 0.0], "dog": [0.333333, 0.5], "pug": [0.333333, 0.5],
    }  # fmt: skip


def test_the_registry_finds_a_task_by_the_name_in_its_files() -> None:
    assert [task_named(name) for name in TASKS] == [SingleLabel]
    assert TASKS[SingleLabel.from_labels(LABELS).name] is SingleLabel
