"""Groups of rows that belong together, built from pairs (union-find)."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt


class Groups:
    """Groups of n rows. At first each row is a group; a group is represented by its lowest row.

    The algorithm is union-find (Tarjan 1975).
    """

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def lowest_row(self, row: int) -> int:
        """Returns the lowest row of the group of `row`."""
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    def join(self, row: int, other: int) -> bool:
        """Merges the groups of two rows; returns True if the groups were different."""
        low, high = sorted((self.lowest_row(row), self.lowest_row(other)))
        self._parent[high] = low
        return low != high

    def join_equal(self, values: Iterable[str]) -> None:
        """Merges the groups of rows that have the same value."""
        first_rows: dict[str, int] = {}
        for row, value in enumerate(values):
            self.join(row, first_rows.setdefault(value, row))

    def lowest_rows(self) -> npt.NDArray[np.int64]:
        """Returns the lowest row of each row's group, int64 (n,)."""
        return np.array([self.lowest_row(row) for row in range(len(self._parent))], np.int64)
