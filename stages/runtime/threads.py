"""Work of many small things on all cores."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from stages.runtime import signals

T = TypeVar("T")
R = TypeVar("R")
A_LOT = 16


@contextmanager
def threads() -> Iterator[Executor]:
    """One a core. Who leaves, stopped or by an error, does not wait for what has not begun."""
    pool = ThreadPoolExecutor(os.cpu_count())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def map_lots(pool: Executor, function: Callable[[T], R], items: Sequence[T], lot_size: int = A_LOT) -> Iterator[R]:
    """`pool.map` in lots: to hand one item over takes longer than to hash a small file."""
    lots = (items[start : start + lot_size] for start in range(0, len(items), lot_size))
    results = pool.map(lambda lot: [function(item) for item in until_stopped(lot)], lots)
    return (result for lot in results for result in lot)


def until_stopped(items: Sequence[T]) -> Iterator[T]:
    """Raises Stopped: a large picture can take a second, and a lot of them more than there is time for."""
    for item in items:
        signals.check()
        yield item
