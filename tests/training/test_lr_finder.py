"""lr_find leaves everything as it was, also when the loop raises."""

import pytest
import torch

from stages.models.networks.network import Network
from stages.runtime.errors import StageError
from stages.training.loop import lr_finder
from stages.training.loop.lr_finder import RangeTestParams, range_test, suggest
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.step import train_step
from tests.models.test_network import CPU, TASK, images, network, state, unchanged  # noqa: F401 (fixtures)
from tests.training.test_fit import TensorFeed

PARAMS = RangeTestParams(lr_start=1e-5, lr_end=10, n_iterations=20)


def optimizer_of(network: Network) -> torch.optim.Optimizer:
    return make_optimizer(
        OptimizerParams(name="adamw", momentum=0.9, weight_decay=0.1), network.groups(), [1e-4, 1e-3, 1e-2]
    )


@pytest.mark.parametrize("raises", [False, True])
def test_nothing_is_touched(network: Network, monkeypatch: pytest.MonkeyPatch, raises: bool) -> None:
    optimizer, feed = optimizer_of(network), TensorFeed()
    for batch in feed.epoch(0):  # an optimiser that has seen something
        train_step(network, batch, TASK, optimizer, CPU)
    optimizer.zero_grad(set_to_none=True)
    network.eval()
    network.head.train()
    weights, moments = state(network), [dict(s) for s in optimizer.state_dict()["state"].values()]
    moments = [{k: v.clone() for k, v in s.items()} for s in moments]
    modes = [module.training for module in network.modules()]
    rng, lrs = torch.get_rng_state(), [group["lr"] for group in optimizer.param_groups]
    if raises:
        steps = iter(range(100))

        def fails(*arguments: object, **options: object) -> float:
            if next(steps) == 5:
                raise RuntimeError("out of memory")
            return train_step(*arguments, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(lr_finder, "train_step", fails)
        with pytest.raises(RuntimeError, match="out of memory"):
            range_test(network, feed, TASK, optimizer, PARAMS, CPU, bn_freeze=True)
    else:
        assert len(range_test(network, feed, TASK, optimizer, PARAMS, CPU, bn_freeze=True)) > 5
    assert unchanged(weights, network) == set(weights)
    after = list(optimizer.state_dict()["state"].values())
    assert all(torch.equal(s[k], t[k]) for s, t in zip(moments, after, strict=True) for k in s)
    assert [group["lr"] for group in optimizer.param_groups] == lrs
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), rng)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_rates_grow_geometrically_and_stop_when_the_loss_explodes(
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    losses = iter([1.0, 0.9, 0.8, 0.7, 100.0, 1.0])  # the average of the fifth is still finite, and above 4 x 0.7
    seen: list[list[float]] = []

    def fake(
        model: object, batch: object, task: object, optimizer: torch.optim.Optimizer, compute: object, scaler: object
    ) -> float:
        seen.append([group["lr"] for group in optimizer.param_groups])
        return next(losses)

    monkeypatch.setattr(lr_finder, "train_step", fake)
    curve = range_test(network, TensorFeed(), TASK, optimizer_of(network), PARAMS, CPU, bn_freeze=True)
    assert len(curve) == 4
    assert curve["lr"].iloc[0] == pytest.approx(1e-5)
    ratio = (10 / 1e-5) ** (1 / 19)
    assert curve["lr"].tolist() == pytest.approx([1e-5 * ratio**k for k in range(4)])
    for lrs in seen:  # the groups keep their ratio
        assert lrs == pytest.approx([lrs[2] / 100, lrs[2] / 10, lrs[2]])


def test_suggestion_is_one_order_below_the_minimum() -> None:
    import pandas as pd

    curve = pd.DataFrame({"lr": [1e-4, 1e-3, 1e-2, 1e-1], "loss": 0.0, "smoothed": [3.0, 2.0, 1.0, 5.0]})
    assert suggest(curve) == pytest.approx({"lr": 1e-3, "lr_min": 1e-2})
    rising = curve.assign(smoothed=[1.0, 2.0, 3.0, 4.0])
    assert suggest(rising) == {"lr": None, "lr_min": 1e-4}


def test_a_range_that_does_not_grow_is_refused() -> None:
    with pytest.raises(ValueError, match="lr_start must be below lr_end"):
        RangeTestParams(lr_start=1, lr_end=1, n_iterations=20)


def test_a_loss_that_is_no_number_ends_it(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = iter([1.0, 0.9, float("nan"), 0.8, 0.7])
    monkeypatch.setattr(lr_finder, "train_step", lambda *_, **__: next(losses))
    assert len(range_test(network, TensorFeed(), TASK, optimizer_of(network), PARAMS, CPU, bn_freeze=True)) == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_first_loss_that_is_no_number_is_one_clear_line(network: Network, value: float) -> None:
    with torch.no_grad():
        network.head[6].bias.fill_(value)  # type: ignore[operator]
    with pytest.raises(StageError, match=r"the loss is nan before the first iteration.*reduce train_head\.lr"):
        range_test(network, TensorFeed(), TASK, optimizer_of(network), PARAMS, CPU, bn_freeze=True)
