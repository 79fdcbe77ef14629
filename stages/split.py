"""split: decide once, for all stages, which pictures are for training and which are for validation.

In:   data/ingest/images.parquet
Out:  data/split/{train,valid,test}.csv (id, label, sha256); test has empty labels
      data/split/duplicates.csv  pairs with the same bytes (kind `exact`) or of the same scene (`near`): id, label, part
                                 (its folder), side (train, valid or test), the same of the other picture, kind,
                                 distance. A group of n duplicates has n - 1 rows: the nearest pairs.
Recipe: `get_cv_idxs`; or a stratified fold; or the split that the folders give. Unlike in the fast.ai course, all
        pictures of a group go to the part of the group's first picture. A group is a set of duplicates, or of
        pictures with the same value in `split.group_column` (patient, module, day).
"""

import sys
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from stages.dataset.splitting.duplicates import find_duplicates
from stages.dataset.splitting.folds import get_cv_idxs, group_idxs, stratified_group_idxs, stratified_idxs
from stages.dataset.splitting.groups import Groups
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Count, Fraction, Section, Seed, load
from stages.runtime.stage import run
from stages.tasks.registry import AnyTask, TaskName, task_named

MAX_DUPLICATE_SHARE = 0.1  # as a share of all pictures; more duplicates may be pictures that only look alike


class SplitParams(Section):
    method: Literal["random", "stratified", "folders"]
    cv_idx: Count
    valid_pct: Annotated[float, Field(gt=0, lt=1)]
    group_column: str | None
    group_duplicates: bool
    max_distance: Fraction


def choose_valid(
    rows: pd.DataFrame, groups: Groups, params: SplitParams, task: type[AnyTask], seed: int
) -> npt.NDArray[np.bool_]:
    """Returns which rows are for validation; a group is never divided.

    Raises StageError if there is no valid/ folder or no such fold.
    """
    first, fold = groups.lowest_rows(), (params.cv_idx, params.valid_pct, seed)
    if params.method == "folders":
        is_valid = rows["part"] == "valid"
        if not is_valid.any():
            raise StageError("split.method is folders, but no picture came from a valid/ folder: set it to random")
        return is_valid.groupby(first).transform("all").to_numpy()
    strata = task.strata(rows["label"].tolist())
    if params.group_column is None:
        idxs = get_cv_idxs(len(rows), *fold) if params.method == "random" else stratified_idxs(strata, *fold)
        return np.isin(first, idxs)
    names = rows["group"].groupby(first).transform("min").tolist()  # duplicates may have joined several groups
    idxs = group_idxs(names, *fold) if params.method == "random" else stratified_group_idxs(strata, names, *fold)
    return np.isin(np.arange(len(rows)), idxs)


def split(table: pd.DataFrame, params: SplitParams, task: type[AnyTask], seed: int) -> dict[str, pd.DataFrame]:
    """Returns the rows of each part, and `duplicates`.

    Raises StageError if the fold does not exist or if train lacks a class.
    """
    is_test = table["part"] == "test"
    table = pd.concat([table[~is_test], table[is_test]], ignore_index=True)
    rows, test = table[table["part"] != "test"], table[table["part"] == "test"]
    pairs, groups = find_duplicates(table, params.max_distance), Groups(len(rows))
    if params.group_column is not None:
        groups.join_equal(rows["group"])
    if params.group_duplicates:
        for row, other in zip(pairs["row"], pairs["other"], strict=True):
            if other < len(rows):
                groups.join(row, other)
    is_valid = choose_valid(rows, groups, params, task, seed)
    joined = f"; {len(pairs):,} duplicates joined" if len(pairs) and params.group_duplicates else ""
    check(rows, is_valid, params, task, joined)
    table["side"] = np.where(np.append(is_valid, np.zeros(len(test), bool)), "valid", "train")
    table.loc[len(rows) :, "side"] = "test"
    columns = ["id", "label", "sha256"]
    parts = {"train": rows[~is_valid][columns], "valid": rows[is_valid][columns], "test": test[columns]}
    return parts | {"duplicates": with_ids(pairs, table)}


def with_ids(pairs: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Returns `pairs` with ids, labels, parts and sides instead of row numbers."""
    described = table[["id", "label", "part", "side"]]
    picture, other = (described.iloc[pairs[column]].reset_index(drop=True) for column in ("row", "other"))
    rest = pairs[["kind", "distance"]].round(6).reset_index(drop=True)
    return pd.concat([picture, other.add_prefix("other_"), rest], axis=1)


def shorten_names(names: set[str]) -> str:
    """Returns the first five names, separated by commas."""
    return ", ".join(sorted(names)[:5]) + (", ..." if len(names) > 5 else "")


def check(
    rows: pd.DataFrame, is_valid: npt.NDArray[np.bool_], params: SplitParams, task: type[AnyTask], joined: str
) -> None:
    if not is_valid.any() and params.method == "folders":
        raise StageError("all pictures of valid/ have a duplicate in train/: set split.method to random")
    if not is_valid.any():
        groups = "" if params.group_column is None else f" in {rows['group'].nunique()} groups of {params.group_column}"
        raise StageError(
            f"split.cv_idx = {params.cv_idx} with valid_pct = {params.valid_pct} leaves no valid picture of "
            f"{len(rows)}{groups}{joined}"
        )
    classes = task.counts(rows["label"].tolist())
    if missing := classes.keys() - task.counts(rows["label"][~is_valid].tolist()):
        raise StageError(
            f"no train picture of {len(missing)} of {len(classes)} classes ({shorten_names(missing)}): take another "
            f"split.cv_idx, method or seed; or is ingest.label_column not the label?{joined}"
        )


def remarks(
    table: pd.DataFrame, parts: dict[str, pd.DataFrame], params: SplitParams, task: type[AnyTask]
) -> Iterator[str]:
    """Yields remarks on the split `parts` of `table` that a user should know but need not act on."""
    n_valid_folder = int((table["part"] == "valid").sum())
    if n_valid_folder and params.method != "folders":
        yield (
            f"split.method = {params.method} draws from train/ and valid/ together: "
            f"{n_valid_folder:,} pictures of valid/ are among those that train or "
            "validate; set split.method to folders to keep the folders as they are"
        )
    classes, valid_classes = (task.counts(parts[part]["label"].tolist()) for part in ("train", "valid"))
    if missing := classes.keys() - valid_classes:
        yield f"no valid picture of {len(missing)} of {len(classes)} classes ({shorten_names(missing)}): not measured"
    pairs, see = parts["duplicates"], f"see {stage_folder('split') / 'duplicates.csv'}"
    sides = [
        " and ".join(sorted(pair)) for pair in zip(pairs["side"], pairs["other_side"], strict=True) if len({*pair}) == 2
    ]
    for pair, count in sorted(Counter(sides).items()):
        yield f"duplicates in {pair}: {count:,}: {see}"
    total = sum(len(parts[part]) for part in ("train", "valid", "test"))
    if len(pairs) > MAX_DUPLICATE_SHARE * total:
        yield f"{len(pairs):,} duplicates among {total:,} pictures: reduce split.max_distance if they differ: {see}"
    labelled = pairs[(pairs["part"] != "test") & (pairs["other_part"] != "test")]
    if n_conflicts := int((labelled["label"] != labelled["other_label"]).sum()):
        yield f"duplicates with different labels: {n_conflicts:,}: {see}"


def main() -> None:
    table, params = pd.read_parquet(stage_folder("ingest") / "images.parquet"), load("split", SplitParams)
    task = task_named(load("task", TaskName))
    parts = split(table, params, task, load("seed", Seed))
    with outputs(stage_folder("split")) as folder:
        for part, rows in parts.items():
            rows.to_csv(folder / f"{part}.csv", index=False)
    print(", ".join(f"{len(rows):,} {part}" for part, rows in parts.items()))
    for remark in remarks(table, parts, params, task):
        print(f"split: {remark}", file=sys.stderr)


if __name__ == "__main__":
    run(main)
