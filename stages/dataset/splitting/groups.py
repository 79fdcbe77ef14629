"""Groups of rows that belong together, built from pairs (union-find)."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Groups:
    """n rows, each its own group at first; a group is represented by its lowest row (union-find, Tarjan 1975)."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def first(self, row: int) -> int:
        """The lowest row of the row's group."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, row: int, other: int) -> bool:
        """Merge two rows' groups; True if they were different groups."""
        low, high = sorted((self.first(row), self.first(other)))
        self._parent[high] = low
        return low != high

    def join_equal(self, values: Iterable[str]) -> None:
        """Merge the groups of rows that have the same value."""
        seen: dict[str, int] = {}
        for row, value in enumerate(values):
            self.join(row, seen.setdefault(value, row))

    def firsts(self) -> npt.NDArray[np.int64]:
        """(n,): the lowest row of each row's group."""
        return np.array([self.first(row) for row in range(len(self._parent))], np.int64)
