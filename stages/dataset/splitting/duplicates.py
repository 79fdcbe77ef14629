"""Finds duplicates in a table of pictures: files with equal bytes (exact) and pictures that show the same (near)."""

import numpy as np
import pandas as pd

from stages.dataset.splitting.groups import Groups
from stages.dataset.splitting.near_duplicates import SIDE, near_duplicates


def find_duplicates(table: pd.DataFrame, max_distance: float) -> pd.DataFrame:
    """Returns the closest pairs that link each group of duplicates, pairs with a test picture last.

    The columns are row and other (the positions of the pictures in `table`), kind and distance.
    """
    codes, _ = pd.factorize(table["sha256"])
    is_first = ~table["sha256"].duplicated().to_numpy()
    first_rows, copy_rows = np.flatnonzero(is_first)[codes], np.flatnonzero(~is_first)
    compared_rows = np.flatnonzero(is_first & (table["thumb"].str.len() > 0).to_numpy())
    thumbnails = np.frombuffer(b"".join(table["thumb"].iloc[compared_rows]), np.int8).reshape(-1, SIDE**2)
    near_pairs, near_distances = near_duplicates(thumbnails, max_distance)
    exact = pd.DataFrame({"row": first_rows[copy_rows], "other": copy_rows, "kind": "exact", "distance": 0.0})
    near = pd.DataFrame(
        {
            "row": compared_rows[near_pairs[:, 0]],
            "other": compared_rows[near_pairs[:, 1]],
            "kind": "near",
            "distance": near_distances,
        }
    )
    pairs = pd.concat([exact, near], ignore_index=True)
    pairs["test"] = (table["part"].to_numpy() == "test")[pairs["other"]]
    pairs = pairs.sort_values(["test", "distance", "row", "other"], ignore_index=True)
    groups = Groups(len(table))
    is_link = [groups.join(row, other) for row, other in zip(pairs["row"], pairs["other"], strict=True)]
    return pairs[np.array(is_link, bool)].drop(columns="test")
