"""Work of many small things on all cores."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
A_LOT = 16


def map_lots(pool: Executor, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """`pool.map` in lots: to hand one item over takes longer than to hash a small file."""
    lots = (items[start : start + A_LOT] for start in range(0, len(items), A_LOT))
    results = pool.map(lambda lot: [function(item) for item in lot], lots)
    return (result for lot in results for result in lot)
