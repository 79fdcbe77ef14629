"""Doubles: pictures of a table that are there twice, by their bytes or by what they show."""

import numpy as np
import pandas as pd

from stages.dataset.splitting.groups import Groups
from stages.dataset.splitting.near_duplicates import SIDE, near


def doubles(table: pd.DataFrame, max_distance: float) -> pd.DataFrame:
    """row, other (positions), kind, distance: of all pairs alike the nearest that link them, those with test last."""
    codes, _ = pd.factorize(table["sha256"])
    is_first = ~table["sha256"].duplicated().to_numpy()
    first, copies = np.flatnonzero(is_first)[codes], np.flatnonzero(~is_first)
    seen = np.flatnonzero(is_first & (table["thumb"].str.len() > 0).to_numpy())
    thumbs = np.frombuffer(b"".join(table["thumb"].iloc[seen]), np.int8).reshape(-1, SIDE**2)
    pairs, apart = near(thumbs, max_distance)
    exact = pd.DataFrame({"row": first[copies], "other": copies, "kind": "exact", "distance": 0.0})
    alike = pd.DataFrame({"row": seen[pairs[:, 0]], "other": seen[pairs[:, 1]], "kind": "near", "distance": apart})
    found = pd.concat([exact, alike], ignore_index=True)
    found["test"] = (table["part"].to_numpy() == "test")[found["other"]]
    found = found.sort_values(["test", "distance", "row", "other"], ignore_index=True)
    groups = Groups(len(table))
    links = [groups.join(row, other) for row, other in zip(found["row"], found["other"], strict=True)]
    return found[np.array(links, bool)].drop(columns="test")
