"""The loop: it learns, it repeats itself bit for bit, it stops on a loss that is not finite."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import log_loss as sklearn_log_loss

from stages.models.networks.network import Network
from stages.runtime.errors import StageError
from stages.training.compute.batches import Batch, shuffled_order
from stages.training.compute.device import Compute
from stages.training.loop.fit import check_loss, fit
from stages.training.loop.history import History
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.schedule import ScheduleParams, make_schedule
from stages.training.loop.step import train_step
from tests.models.test_network import CPU, TASK, network  # noqa: F401 (a fixture)

SGDR = ScheduleParams(schedule="sgdr", n_cycles=1, cycle_len=8, cycle_mult=1, hold_pct=0.0)


class TensorFeed:
    """24 drawn pictures whose class is their brightest channel."""

    def __init__(self) -> None:
        self.targets = torch.arange(24) % 3
        self.x = torch.randn(24, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        self.x[torch.arange(24), self.targets] += 2

    def n_batches(self) -> int:
        return 3

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        return self._batches(shuffled_order(24, 8, [0, epoch])[8 * done :])

    def plain(self) -> Iterator[Batch]:
        return self._batches(np.arange(24))

    def _batches(self, order: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Iterator[Batch]:
        for rows in order.reshape(-1, 8):
            yield Batch(CPU.to_device(self.x[rows]), rows, 0, self.targets[rows])


def run(network: Network, lr: float = 1e-3, compute: Compute = CPU) -> tuple[pd.DataFrame, pd.DataFrame]:
    torch.manual_seed(0)
    groups = network.groups()
    optimizer = make_optimizer(OptimizerParams(name="adamw", momentum=0.9, weight_decay=0.01), groups, [lr] * 3)
    feed = TensorFeed()
    history = fit(network, feed, feed, TASK, optimizer, make_schedule(SGDR, 3), 8, compute, bn_freeze=False)
    return pd.DataFrame(history.epochs), pd.DataFrame(history.iterations)


def test_it_learns_and_writes_down_every_rate(network: Network) -> None:
    epochs, steps = run(network)
    assert epochs["valid_loss"].iloc[-1] < epochs["valid_loss"].iloc[0]
    assert epochs["accuracy"].iloc[-1] > 0.6  # by chance 0.33
    assert steps["step"].tolist() == list(range(24))
    assert steps["lr"].tolist() == pytest.approx([1e-3 * (1 + np.cos(np.pi * k / 24)) / 2 for k in range(24)])


def test_same_seed_same_bits(network: Network) -> None:
    start = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = run(network)
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(start)
    again = run(network)
    pd.testing.assert_frame_equal(first[1], again[1], check_exact=True)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_a_loss_that_is_not_finite_stops_with_step_rates_and_last_good_loss(network: Network) -> None:
    with pytest.raises(StageError, match=r"the loss is nan at iteration \d.*learning rates \[.*last good loss was \d"):
        run(network, lr=1e30)


def test_label_smoothing_spreads_a_share_of_the_target_over_all_classes(network: Network) -> None:
    feed = TensorFeed()
    batch = next(feed.plain())
    y, optimizer = batch.targets(), torch.optim.SGD(network.parameters(), lr=0.0)
    network.eval()
    with torch.no_grad():
        log_p = network(batch.x).log_softmax(1)
    plain = -log_p.gather(1, y[:, None]).mean().item()
    assert train_step(network, batch, TASK, optimizer, CPU) == pytest.approx(plain, rel=1e-5)
    smooth = 0.9 * plain - 0.1 * log_p.mean().item()
    assert train_step(network, batch, TASK, optimizer, CPU, label_smoothing=0.1) == pytest.approx(smooth, rel=1e-5)


def test_log_loss_is_scikit_learns() -> None:
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 50).astype(np.float32)
    p[0] = [1, 0, 0]
    y = np.arange(50) % 3
    y[0] = 1
    p64 = p.astype(np.float64)
    expected = sklearn_log_loss(y, (p64 / p64.sum(1, keepdims=True)).astype(np.float32))
    assert TASK.losses(p, y).mean() == pytest.approx(expected, rel=1e-5)


def test_every_item_is_seen_and_all_batches_are_full() -> None:
    order = shuffled_order(21, 8, [1, 2])
    assert len(order) == 24
    assert sorted(set(order[:21])) == list(range(21))
    np.testing.assert_array_equal(order[21:], order[:3])
    assert (order != shuffled_order(21, 8, [1, 3])).any()


def history_of(*losses: float) -> History:
    return History(iterations=[{"step": step, "lr": 0.1, "loss": loss} for step, loss in enumerate(losses)])


def test_a_loss_that_explodes_stops_with_step_rates_and_last_good_loss() -> None:
    losses = [0.9] * 60 + [900.0] * 4
    with pytest.raises(
        StageError, match=r"the loss is 900 at iteration 64 \(epoch 3\), .* \[0.1\]; the last good loss was 0.9"
    ):
        check_loss(900.0, [0.1], 2, history_of(*losses), uninformed_loss=math.log(3))


@pytest.mark.parametrize(
    "losses",
    [
        [20.0] * 30 + [30.0] * 30,  # a bad start is no explosion
        [0.9] * 60 + [15.0] * 30,  # some have come back from there (head, two classes, rate 0.3)
        [0.9] * 60 + [900.0],  # one bad batch
        [0.9] * 10 + [900.0] * 20,  # too early to tell
    ],
)
def test_what_is_no_explosion(losses: list[float]) -> None:
    check_loss(losses[-1], [0.1], 2, history_of(*losses[:-1]), uninformed_loss=math.log(3))


def test_the_loop_looks_through_no_labels(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even once: how many classes there are says the task."""
    looks, largest = [], torch.Tensor.max

    def counted(tensor: torch.Tensor, *arguments: object) -> object:
        if tensor.dtype is torch.int64:
            looks.append(len(tensor))
        return largest(tensor, *arguments)

    monkeypatch.setattr(torch.Tensor, "max", counted)
    run(network)
    assert looks == []


def test_float16_learns_too_with_its_loss_scaled(network: Network) -> None:
    """On the CPU, which params do not allow: the same code runs on a GPU."""
    epochs, steps = run(network, compute=Compute(torch.device("cpu"), torch.float16))
    assert epochs["valid_loss"].iloc[-1] < epochs["valid_loss"].iloc[0]
    assert np.isfinite(steps["loss"]).all()


def test_a_step_whose_gradients_do_not_fit_is_left_out(network: Network) -> None:
    compute, feed = Compute(torch.device("cpu"), torch.float16), TensorFeed()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    before = [parameter.clone() for parameter in network.parameters()]
    batch = next(feed.plain())
    train_step(network, batch, TASK, optimizer, compute, scaler=scaler)
    assert all(torch.equal(one, other) for one, other in zip(network.parameters(), before, strict=True))
    assert scaler.get_scale() == 2.0**59
