"""Training knows no labels: a task that is none of ours, numbers instead of classes, goes through all of it."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from stages.runtime.errors import StageError
from stages.training.compute.batches import Batch, shuffled_order
from stages.training.compute.predict import average, predict
from stages.training.compute.task import Array, Floats64, Objective
from stages.training.loop.fit import fit, validate
from stages.training.loop.lr_finder import RangeTestParams, range_test
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.schedule import ScheduleParams, make_schedule
from tests.models.test_network import CPU


class Numbers:
    """Two numbers an item, squared error; targets are float, of two dimensions."""

    n_outputs = 2
    uninformed_loss = 1.0

    def loss(
        self, outputs: torch.Tensor, y: torch.Tensor, weight: torch.Tensor | None = None, label_smoothing: float = 0.0
    ) -> torch.Tensor:
        if label_smoothing:
            raise StageError("numbers cannot be smoothed: set train_full.label_smoothing to 0")
        return ((outputs.float() - y) ** 2).mean()

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs.float()

    def losses(self, predictions: Array, y: Array) -> Floats64:
        losses: Floats64 = ((predictions - y) ** 2).mean(1, dtype=np.float64)
        return losses

    def scores(self, predictions: Array, y: Array) -> dict[str, Array]:
        return {"mae": np.abs(predictions - y).mean(1)}


TASK: Objective = Numbers()


class NumbersFeed:
    """20 items, y = 2 x; the last of the three batches of `plain` is padded."""

    def __init__(self) -> None:
        self.x = torch.randn(20, 2, generator=torch.Generator().manual_seed(0))

    def n_batches(self) -> int:
        return 3

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        for rows in shuffled_order(20, 8, [0, epoch])[8 * done :].reshape(-1, 8):
            yield Batch(self.x[rows], rows, 0, 2 * self.x[rows])

    def plain(self) -> Iterator[Batch]:
        for start in range(0, 20, 8):
            rows = np.minimum(np.arange(start, start + 8), 19)
            yield Batch(self.x[rows], rows, max(0, start + 8 - 20), 2 * self.x[rows])


def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(2, 2, bias=False)
    params = OptimizerParams(name="sgd", momentum=0.5, weight_decay=0.0)
    return model, make_optimizer(params, [list(model.parameters())], [0.1])


def test_it_is_trained_measured_and_predicted() -> None:
    (model, optimizer), feed = learner(), NumbersFeed()
    params = RangeTestParams(lr_start=1e-4, lr_end=1.0, n_iterations=9)
    assert len(range_test(model, feed, TASK, optimizer, params, CPU, bn_freeze=False)) > 5
    schedule = make_schedule(ScheduleParams(schedule="sgdr", n_cycles=1, cycle_len=9, cycle_mult=1, hold_pct=0.0), 3)
    history = fit(model, feed, feed, TASK, optimizer, schedule, 9, CPU)
    last = history.epochs[-1]
    assert list(last) == ["epoch", "train_loss", "valid_loss", "mae"]
    predictions = predict(model, feed.plain(), 20, 3, TASK, CPU)
    error = predictions - 2 * feed.x.numpy()
    assert last["valid_loss"] == pytest.approx((error**2).mean(), rel=1e-5)
    assert last["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert last["mae"] < 0.2 < history.epochs[0]["mae"]
    assert validate(model, feed, TASK, CPU) == {name: last[name] for name in ("valid_loss", "mae")}
    np.testing.assert_allclose(average(predictions, [predictions + 1]), predictions + 0.5, rtol=1e-5, atol=1e-6)


def test_smoothing_that_a_task_has_not_ends_the_training_in_one_line() -> None:
    (model, optimizer), feed = learner(), NumbersFeed()
    schedule = make_schedule(ScheduleParams(schedule="sgdr", n_cycles=1, cycle_len=1, cycle_mult=1, hold_pct=0.0), 3)
    with pytest.raises(StageError, match="numbers cannot be smoothed"):
        fit(model, feed, feed, TASK, optimizer, schedule, 1, CPU, label_smoothing=0.1)


def test_a_feed_without_targets_is_for_prediction_alone() -> None:
    batch = Batch(torch.zeros(2, 2), np.arange(2), 0)
    assert predict(nn.Identity(), iter([batch]), 2, 1, TASK, CPU).shape == (2, 2)
    with pytest.raises(TypeError, match="no targets"):
        batch.targets()
