"""Duplicates: pictures of a table with equal bytes (exact), or that show the same (near)."""

import numpy as np
import pandas as pd

from stages.dataset.splitting.groups import Groups
from stages.dataset.splitting.near_duplicates import SIDE, near_duplicates


def find_duplicates(table: pd.DataFrame, max_distance: float) -> pd.DataFrame:
    """Columns row, other (positions), kind, distance: the closest pairs that link each group of duplicates,
    those with a test picture last."""
    codes, _ = pd.factorize(table["sha256"])
    is_first = ~table["sha256"].duplicated().to_numpy()
    first, copies = np.flatnonzero(is_first)[codes], np.flatnonzero(~is_first)
    seen = np.flatnonzero(is_first & (table["thumb"].str.len() > 0).to_numpy())
    thumbnails = np.frombuffer(b"".join(table["thumb"].iloc[seen]), np.int8).reshape(-1, SIDE**2)
    pairs, pair_distances = near_duplicates(thumbnails, max_distance)
    exact = pd.DataFrame({"row": first[copies], "other": copies, "kind": "exact", "distance": 0.0})
    near = pd.DataFrame(
        {"row": seen[pairs[:, 0]], "other": seen[pairs[:, 1]], "kind": "near", "distance": pair_distances}
    )
    found = pd.concat([exact, near], ignore_index=True)
    found["test"] = (table["part"].to_numpy() == "test")[found["other"]]
    found = found.sort_values(["test", "distance", "row", "other"], ignore_index=True)
    groups = Groups(len(table))
    links = [groups.join(row, other) for row, other in zip(found["row"], found["other"], strict=True)]
    return found[np.array(links, bool)].drop(columns="test")
