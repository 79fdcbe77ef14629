"""Learning-rate schedules that change the rate after each iteration: SGDR, and 1cycle as torch implements it."""

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
    """Returns the number of epochs of all cycles: 1 + 2 + 4 = 7 for n_cycles=3, cycle_len=1, cycle_mult=2.

    Raises StageError if there are more than `MAX_EPOCHS`.
    """
    total: int = sum(cycle_len * cycle_mult**cycle for cycle in range(n_cycles))
    if total > MAX_EPOCHS:
        requested = f"n_cycles {n_cycles}, cycle_len {cycle_len} and cycle_mult {cycle_mult}"
        raise StageError(f"{requested} give more than {MAX_EPOCHS:,} epochs: reduce one of them in params.yaml")
    return total


def cycle_ends(params: ScheduleParams) -> list[int]:
    """Returns the epochs (1-based) at the end of a cycle.

    The learning rate is low there, so the weights are worth saving (as fast.ai 0.7 does with `cycle_save_name`).
    """
    cycles = range(1, params.n_cycles + 1) if params.schedule == "sgdr" else [params.n_cycles]
    return [total_epochs(n_cycles, params.cycle_len, params.cycle_mult) for n_cycles in cycles]


def sgdr_factor(iteration: int, cycle_len: int, cycle_mult: int, hold_pct: float = 0.0) -> float:
    """Returns the learning rate at `iteration` (0-based), as a share of the peak rate.

    The schedule is SGDR (Loshchilov & Hutter 2017, eq. 5) with lr_min = 0. `cycle_len` is in iterations; the first
    iteration of every cycle has exactly the peak rate. In the first `hold_pct` of the first cycle the rate is 1/100 of
    the peak; fast.ai 0.7 has a `hold_pct` of 0.05, the paper of 0.

    The cycle is found by repeated subtraction. A logarithm in floating point would be slightly off at some restarts,
    for example log(243, 3) is not exactly 5.
    """
    if iteration < hold_pct * cycle_len:
        return 0.01
    while iteration >= cycle_len:
        iteration -= cycle_len
        cycle_len *= cycle_mult
    return (1 + math.cos(math.pi * iteration / cycle_len)) / 2


def make_schedule(params: ScheduleParams, iterations_per_epoch: int) -> Callable[[Optimizer], LRScheduler]:
    """Returns a function that makes the schedule of an optimiser. The learning rates of the optimiser's groups must be
    their peak rates.

    `one_cycle` (Smith 2018), as in the later fast.ai course, is one rise and one fall of the learning rate, over as
    many epochs as all cycles together have. Momentum falls while the rate rises, and rises while the rate falls. It
    stays between 0.05 below and 0.05 above the optimiser's momentum, and between 0 and 0.99.
    """

    def sgdr(optimizer: Optimizer) -> LRScheduler:
        length = params.cycle_len * iterations_per_epoch
        return LambdaLR(optimizer, lambda iteration: sgdr_factor(iteration, length, params.cycle_mult, params.hold_pct))

    def one_cycle(optimizer: Optimizer) -> LRScheduler:
        n_iterations = iterations_per_epoch * total_epochs(params.n_cycles, params.cycle_len, params.cycle_mult)
        peaks = [group["lr"] for group in optimizer.param_groups]
        group = optimizer.param_groups[0]
        momentum = group["betas"][0] if "betas" in group else group["momentum"]
        return OneCycleLR(
            optimizer,
            max_lr=peaks,
            # One more than the iterations: the rate reaches its minimum, which is nearly 0, after the last iteration
            # instead of in it. At least 5: with 4 torch divides by zero, with fewer the first rate is near the peak.
            total_steps=max(n_iterations + 1, 5),
            pct_start=0.25,
            base_momentum=max(round(momentum - 0.05, 6), 0),
            max_momentum=min(round(momentum + 0.05, 6), 0.99),
        )

    return one_cycle if params.schedule == "one_cycle" else sgdr
