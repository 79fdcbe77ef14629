"""Groups of rows that belong together, found from pairs of them."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Groups:
    """Of n rows, each its own group at first; a group is called by its lowest row (union-find, Tarjan 1975)."""

    def __init__(self, n: int) -> None:
        self._above = list(range(n))

    def first(self, row: int) -> int:
        above = self._above
        while above[row] != row:
            above[row] = above[above[row]]
            row = above[row]
        return row

    def join(self, row: int, other: int) -> bool:
        """Whether they were apart."""
        low, high = sorted((self.first(row), self.first(other)))
        self._above[high] = low
        return low != high

    def join_equal(self, values: Iterable[str]) -> None:
        """Rows of the same value."""
        seen: dict[str, int] = {}
        for row, value in enumerate(values):
            self.join(row, seen.setdefault(value, row))

    def firsts(self) -> npt.NDArray[np.int64]:
        """(n,): the lowest row of each row's group."""
        return np.array([self.first(row) for row in range(len(self._above))], np.int64)
