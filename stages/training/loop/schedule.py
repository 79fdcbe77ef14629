"""Learning-rate schedules, stepped once an iteration: SGDR by a pure function, 1cycle by torch."""

import math
from collections.abc import Callable
from typing import Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from stages.runtime.errors import StageError
from stages.runtime.params import CycleCount, Fraction, Section

MAX_EPOCHS = 100_000


class ScheduleParams(Section):
    schedule: Literal["sgdr", "one_cycle"]
    n_cycles: CycleCount
    cycle_len: CycleCount
    cycle_mult: CycleCount
    hold_pct: Fraction


def total_epochs(n_cycles: int, cycle_len: int, cycle_mult: int) -> int:
    """Epochs of all cycles: n_cycles=3, cycle_len=1, cycle_mult=2 is 1 + 2 + 4 = 7. Raises StageError
    if there are too many."""
    total: int = sum(cycle_len * cycle_mult**cycle for cycle in range(n_cycles))
    if total > MAX_EPOCHS:
        asked = f"n_cycles {n_cycles}, cycle_len {cycle_len} and cycle_mult {cycle_mult}"
        raise StageError(f"{asked} are more than {MAX_EPOCHS:,} epochs: lower one in params.yaml")
    return total


def cycle_ends(params: ScheduleParams) -> list[int]:
    """Epochs (1-based) at the end of a cycle, when the rate is low: worth saving (0.7's cycle_save_name)."""
    cycles = range(1, params.n_cycles + 1) if params.schedule == "sgdr" else [params.n_cycles]
    return [total_epochs(n_cycles, params.cycle_len, params.cycle_mult) for n_cycles in cycles]


def sgdr_factor(step: int, cycle_len: int, cycle_mult: int, hold_pct: float = 0.0) -> float:
    """Share of the peak rate at iteration `step` (0-based): SGDR (Loshchilov & Hutter 2017, eq. 5), lr_min = 0.

    `cycle_len` is in iterations; the first step of every cycle is exactly 1. For the first `hold_pct` of cycle one
    the rate is 1/100 of the peak: fast.ai 0.7 holds 0.05, the paper 0. The cycle is found by subtraction: a floating
    log misses restarts (243 = 3**5).
    """
    if step < hold_pct * cycle_len:
        return 0.01
    while step >= cycle_len:
        step -= cycle_len
        cycle_len *= cycle_mult
    return (1 + math.cos(math.pi * step / cycle_len)) / 2


def make_schedule(params: ScheduleParams, steps_per_epoch: int) -> Callable[[Optimizer], LRScheduler]:
    """The schedule for an optimiser whose groups hold their peak rates.

    `one_cycle` (Smith 2018, as the later course uses it) is one rise and one fall over all the epochs that the cycles
    would take; momentum moves the opposite way, by 0.05 to either side of the optimiser's, within 0 and 0.99.
    """

    def sgdr(optimizer: Optimizer) -> LRScheduler:
        length = params.cycle_len * steps_per_epoch
        return LambdaLR(optimizer, lambda step: sgdr_factor(step, length, params.cycle_mult, params.hold_pct))

    def one_cycle(optimizer: Optimizer) -> LRScheduler:
        steps = steps_per_epoch * total_epochs(params.n_cycles, params.cycle_len, params.cycle_mult)
        peaks = [group["lr"] for group in optimizer.param_groups]
        first = optimizer.param_groups[0]
        momentum = first["betas"][0] if "betas" in first else first["momentum"]
        return OneCycleLR(
            optimizer,
            max_lr=peaks,
            total_steps=max(steps + 1, 5),  # torch divides by zero at 4, and starts shorter ones near the peak
            pct_start=0.25,
            base_momentum=max(round(momentum - 0.05, 6), 0),
            max_momentum=min(round(momentum + 0.05, 6), 0.99),
        )

    return one_cycle if params.schedule == "one_cycle" else sgdr
