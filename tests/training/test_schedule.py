"""The rate at the first, middle and last step, and at every restart."""

import math
from typing import Any

import pytest
import torch
from torch.optim import SGD, AdamW, Optimizer

from stages.runtime.errors import StageError
from stages.training.loop.schedule import ScheduleParams, cycle_ends, make_schedule, sgdr_factor, total_epochs


def sgdr(cycle_mult: int, **changes: object) -> ScheduleParams:
    values = {"schedule": "sgdr", "n_cycles": 3, "cycle_len": 1, "cycle_mult": cycle_mult, "hold_pct": 0.0}
    return ScheduleParams.model_validate(values | changes)


@pytest.mark.parametrize(("cycle_mult", "restarts"), [(1, [0, 10, 20]), (2, [0, 10, 30]), (3, [0, 10, 40])])
def test_every_restart_is_exactly_the_peak(cycle_mult: int, restarts: list[int]) -> None:
    for number, start in enumerate(restarts):
        length = 10 * cycle_mult**number
        assert sgdr_factor(start, 10, cycle_mult) == 1
        assert sgdr_factor(start + length // 2, 10, cycle_mult) == pytest.approx(0.5)
        last = (1 + math.cos(math.pi * (length - 1) / length)) / 2
        assert sgdr_factor(start + length - 1, 10, cycle_mult) == pytest.approx(last)
        assert last < 0.03


def test_no_restart_is_missed_by_rounding() -> None:
    """A cycle found by a floating logarithm loses the one at 3**5 = 243 (seen in a well-known library)."""
    assert [sgdr_factor(10 * (3**k - 1) // 2, 10, 3) for k in range(12)] == [1.0] * 12


def test_the_courses_hold_is_a_hundredth_for_5_per_cent_of_the_first_cycle() -> None:
    assert [sgdr_factor(step, 100, 1, 0.05) for step in (0, 4, 100, 104)] == pytest.approx(
        [0.01, 0.01, 1, sgdr_factor(4, 100, 1)]
    )
    assert sgdr_factor(5, 100, 1, 0.05) == sgdr_factor(5, 100, 1) > 0.99


def test_three_cycles_with_mult_2_are_7_epochs() -> None:
    assert total_epochs(3, 1, 2) == 7


@pytest.mark.parametrize(
    ("changes", "ends"),
    [
        ({"cycle_mult": 2}, [1, 3, 7]),
        ({"cycle_mult": 1, "cycle_len": 2}, [2, 4, 6]),
        ({"cycle_mult": 1, "n_cycles": 1, "cycle_len": 5}, [5]),
        ({"cycle_mult": 2, "schedule": "one_cycle"}, [7]),
        ({"cycle_mult": 1, "schedule": "one_cycle", "n_cycles": 1, "cycle_len": 10}, [10]),
    ],
)
def test_a_network_is_worth_saving_where_the_rate_has_come_down(changes: dict[str, object], ends: list[int]) -> None:
    assert cycle_ends(sgdr(**{"cycle_mult": 1} | changes)) == ends  # type: ignore[arg-type]


def test_each_layer_group_keeps_its_own_peak() -> None:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (1e-4, 1e-3, 1e-2)]
    optimizer = SGD(groups, momentum=0.9)
    schedule = make_schedule(sgdr(2), iterations_per_epoch=10)(optimizer)
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1e-4, 1e-3, 1e-2]
    for _ in range(10):
        optimizer.step()
        schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-5, 5e-4, 5e-3])


def test_one_cycle_rises_then_falls_with_momentum_opposite() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.9)
    schedule = make_schedule(sgdr(1, schedule="one_cycle", n_cycles=1, cycle_len=10), iterations_per_epoch=10)(
        optimizer
    )
    seen = []
    for _ in range(100):
        seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        schedule.step()
    lrs, momenta = zip(*seen, strict=True)
    peak = lrs.index(max(lrs))
    assert (lrs[0], max(lrs)) == pytest.approx((0.1 / 25, 0.1), rel=1e-3)
    assert 20 <= peak <= 30
    assert lrs[-1] < 1e-4
    assert (momenta[0], momenta[-1]) == pytest.approx((0.95, 0.95), rel=1e-2)
    assert min(momenta) == pytest.approx(momenta[peak])


@pytest.mark.parametrize("steps", range(1, 9))
def test_one_cycle_of_few_steps_starts_low_and_keeps_to_its_peak(steps: int) -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=0.5)
    schedule = make_schedule(sgdr(1, schedule="one_cycle", n_cycles=1), iterations_per_epoch=steps)(optimizer)
    lrs, momenta = [], []
    for _ in range(steps):
        lrs.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        schedule.step()
    assert lrs[0] == pytest.approx(0.1 / 25)
    assert max(lrs) <= 0.1
    assert all(0.45 <= momentum <= 0.55 for momentum in momenta)


def one_cycle_values(optimizer: Optimizer, key: str, steps: int) -> list[Any]:
    """What the optimiser's group holds under `key` before each step of one cycle."""
    schedule = make_schedule(sgdr(1, schedule="one_cycle", n_cycles=1), iterations_per_epoch=steps)(optimizer)
    values = []
    for _ in range(steps):
        values.append(optimizer.param_groups[0][key])
        optimizer.step()
        schedule.step()
    return values


@pytest.mark.parametrize(("momentum", "low", "high"), [(0.97, 0.92, 0.99), (0.03, 0, 0.08), (0.9, 0.85, 0.95)])
def test_one_cycle_keeps_momentum_within_0_and_99_hundredths(momentum: float, low: float, high: float) -> None:
    momenta = one_cycle_values(SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1, momentum=momentum), "momentum", 39)
    assert momenta[0] == pytest.approx(high, abs=1e-12)
    assert min(momenta) == pytest.approx(low, abs=1e-12)


def test_the_hold_is_kept_by_sgdr() -> None:
    optimizer = SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    make_schedule(sgdr(1, hold_pct=0.1), iterations_per_epoch=20)(optimizer)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


def test_one_cycle_moves_adams_first_beta() -> None:
    betas = one_cycle_values(AdamW([torch.nn.Parameter(torch.zeros(1))], lr=0.1, betas=(0.9, 0.99)), "betas", 20)
    assert betas[0] == pytest.approx((0.95, 0.99))
    assert min(first for first, _ in betas) == pytest.approx(0.85, abs=0.01)


def test_more_epochs_than_anybody_can_mean_are_refused() -> None:
    with pytest.raises(StageError, match="more than 100,000 epochs"):
        total_epochs(n_cycles=1000, cycle_len=1, cycle_mult=2)
    assert total_epochs(n_cycles=100, cycle_len=1000, cycle_mult=1) == 100_000
    with pytest.raises(StageError, match="more than 100,000 epochs"):
        total_epochs(n_cycles=1, cycle_len=100_001, cycle_mult=1)
