"""How many CPUs this process may use, and a thread pool for many small items."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from stages.runtime import signals

T = TypeVar("T")
R = TypeVar("R")
LOT_SIZE = 16  # items that one thread gets at a time


def available_cpus(root: Path = Path("/")) -> int:
    """Returns OMP_NUM_THREADS if set, else the number of CPUs that this process may use.

    The number is at most the quota of the process's cgroups (a container's share of the machine), rounded up.
    """
    requested = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if requested.isdecimal() and int(requested) > 0:
        return int(requested)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min([allowed, *cgroup_quotas(root)])))


def cgroup_quotas(root: Path) -> Iterator[float]:
    """Yields the CPU quotas of the process's control groups and of their parents, below the file system's `root`."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:  # macOS
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounts = [root / "sys/fs/cgroup"] if not controllers else [
            root / "sys/fs/cgroup" / name for name in dict.fromkeys((controllers, "cpu"))
        ]  # fmt: skip
        inside = Path(path.lstrip("/"))
        for folder in (mount / part for mount in mounts for part in (inside, *inside.parents)):
            with suppress(OSError, ValueError, ZeroDivisionError):
                yield _quota(folder, is_v2=not controllers)


def _quota(folder: Path, is_v2: bool) -> float:
    """Returns the quota in CPUs. Raises OSError if the group does not exist, ValueError if it has no limit."""
    if is_v2:
        quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
    else:
        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text(encoding="utf-8") for name in ("quota", "period"))
    if int(quota) <= 0:  # -1 in v1; in v2 `max`, for which int() raises ValueError
        raise ValueError("no limit")
    return int(quota) / int(period)


@contextmanager
def threads() -> Iterator[Executor]:
    """Yields a pool with one thread per CPU. On exit, queued work is cancelled."""
    pool = ThreadPoolExecutor(available_cpus())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def map_lots(pool: Executor, function: Callable[[T], R], items: Sequence[T], lot_size: int = LOT_SIZE) -> Iterator[R]:
    """Returns what `pool.map` returns, but hands each thread a lot of `lot_size` items at a time.

    Handing over a single item takes longer than hashing a small file.
    """
    lots = (items[start : start + lot_size] for start in range(0, len(items), lot_size))
    results = pool.map(lambda lot: [function(item) for item in until_stopped(lot)], lots)
    return (result for lot in results for result in lot)


def until_stopped(items: Sequence[T]) -> Iterator[T]:
    """Yields the items. Raises Stopped between two items: a large picture can take a second, a whole lot too long."""
    for item in items:
        signals.check()
        yield item
