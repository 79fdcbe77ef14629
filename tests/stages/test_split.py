"""Splits: fast.ai's golden values, and what a fold must hold."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.dataset.splitting.folds import get_cv_idxs, stratified_idxs
from stages.runtime.errors import StageError
from stages.split import SplitParams, remarks, split
from stages.tasks.single_label import SingleLabel

DOG_BREEDS = Path(__file__).parents[3] / "shared" / "data" / "dogbreeds_labels.csv"

TASK = SingleLabel


def table(labels: list[str], part: str = "train", groups: list[str] | None = None) -> pd.DataFrame:
    """No two pictures alike: none has a thumbnail."""
    ids = [f"{i:05d}" for i in range(len(labels))]
    return pd.DataFrame(
        {"id": ids, "label": labels, "part": part, "sha256": [f"{part}{i}" for i in ids], "thumb": b""}
        | {"group": [""] * len(ids) if groups is None else groups}
    )


def params(**changes: object) -> SplitParams:
    values = {"method": "random", "cv_idx": 0, "valid_pct": 0.2, "group_column": None, "group_duplicates": True}
    return SplitParams.model_validate(values | {"max_distance": 0.001} | changes)


def copies(rows: pd.DataFrame, *sets: list[int]) -> pd.DataFrame:
    """The rows of each set get the bytes of its first one."""
    shas = rows["sha256"].tolist()
    for places in sets:
        for place in places:
            shas[place] = shas[places[0]]
    return rows.assign(sha256=shas)


def said(rows: pd.DataFrame, **changes: object) -> list[str]:
    return list(remarks(rows, split(rows, params(**changes), TASK, seed=1), params(**changes), TASK))


def ids(rows: pd.DataFrame) -> set[str]:
    return set(rows["id"])


def test_golden_values_of_the_course() -> None:
    idxs = get_cv_idxs(10222, cv_idx=4)
    assert len(idxs) == 2044
    assert idxs[:3].tolist() == [3694, 1573, 6281]
    assert idxs[-3:].tolist() == [5734, 5191, 5390]
    assert get_cv_idxs(10222).tolist() == get_cv_idxs(10222, 0, 0.2, 42).tolist()


@pytest.mark.skipif(not DOG_BREEDS.exists(), reason="the labels of the competition are not here")
def test_golden_class_counts_of_the_dog_breeds() -> None:
    breeds = pd.read_csv(DOG_BREEDS)["breed"]
    assert len(breeds) == 10222
    assert breeds.value_counts().head(10).to_dict() == {
        "scottish_deerhound": 126, "maltese_dog": 117, "afghan_hound": 116, "entlebucher": 115,
        "bernese_mountain_dog": 114, "shih-tzu": 112, "great_pyrenees": 111, "pomeranian": 111, "basenji": 110,
        "samoyed": 109,
    }  # fmt: skip
    parts = split(table(breeds.tolist()), params(cv_idx=4), TASK, seed=42)
    assert (len(parts["train"]), len(parts["valid"])) == (8178, 2044)


def test_folds_are_disjoint_and_the_global_generator_is_not_touched() -> None:
    np.random.seed(1)  # noqa: NPY002 (the global one is what must not move)
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    folds = [set(get_cv_idxs(103, k).tolist()) for k in range(5)]
    assert np.random.random() == expected  # noqa: NPY002
    assert len(set.union(*folds)) == sum(map(len, folds)) == 100  # int(0.2 * 103) drops three


def test_stratified_folds_cover_and_keep_shares() -> None:
    labels = ["a"] * 50 + ["b"] * 25 + ["c"] * 10
    folds = [stratified_idxs(labels, k, 0.2, 42) for k in range(5)]
    assert sorted(np.concatenate(folds)) == list(range(85))
    assert {tuple(np.unique(np.array(labels)[fold], return_counts=True)[1]) for fold in folds} == {(10, 5, 2)}


def test_stratified_folds_do_not_depend_on_which_class_comes_first() -> None:
    labels = ["b"] * 10 + ["a"] * 10
    one, other = stratified_idxs(labels, 1, 0.2, 42), stratified_idxs(labels[10:] + labels[:10], 1, 0.2, 42)
    assert sorted((other + 10) % 20) == one.tolist()


def test_folders_give_the_split_and_test_has_no_labels() -> None:
    rows = pd.concat([table(["a", "b"]), table(["a"], "valid"), table(["", ""], "test")])
    parts = split(rows, params(method="folders"), TASK, seed=1)
    assert [len(parts[part]) for part in ("train", "valid", "test")] == [2, 1, 2]
    assert parts["test"]["label"].tolist() == ["", ""]


GROUPED = table(["a", "b"] * 10, groups=["x"] * 10 + ["y"] * 10)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (table(["a", "b"] * 10), {"method": "folders"}, "no picture came from a valid/ folder"),
        (table(["a", "b"] * 10), {"cv_idx": 5}, "leaves no valid picture of 20"),
        (table(["a", "b"] * 10 + ["c"]), {"valid_pct": 0.99}, "no train picture of"),
        (
            copies(pd.concat([table(["a", "b"]), table(["a"], "valid")], ignore_index=True), [0, 2]),
            {"method": "folders"},
            "all pictures of valid/ have a duplicate in train/",
        ),
        (
            copies(table(["a", "b"] * 10), list(range(20))),
            {"cv_idx": 1},
            "valid picture of 20; 19 duplicates joined",
        ),
        (GROUPED, {"group_column": "who"}, "leaves no valid picture of 20 in 2 groups of who"),
        (GROUPED, {"group_column": "who", "method": "stratified"}, "makes 5 folds, .* between 0.5 and 0.5"),
        (GROUPED, {"group_column": "who", "method": "stratified", "valid_pct": 0.9}, "makes 1 folds"),
        (GROUPED, {"group_column": "who", "method": "stratified", "valid_pct": 0.5, "cv_idx": 2}, "no valid picture"),
    ],
)
def test_errors(rows: pd.DataFrame, changes: dict[str, object], message: str) -> None:
    with pytest.raises(StageError, match=message):
        split(rows, params(**changes), TASK, seed=42)


def test_without_duplicates_the_golden_split_is_what_it_was() -> None:
    rows = table(["a", "b"] * 50)
    parts = split(rows, params(cv_idx=2), TASK, seed=42)
    assert ids(parts["valid"]) == {f"{i:05d}" for i in get_cv_idxs(100, 2)}
    assert parts["valid"]["id"].is_monotonic_increasing
    assert parts["duplicates"].empty


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_duplicates_go_where_the_first_goes_and_folds_stay_disjoint(method: str) -> None:
    rows = copies(table(["a", "b"] * 50), [3, 40, 77], [10, 11], [98, 99])
    folds = []
    for cv_idx in range(5):
        plain = split(rows, params(method=method, cv_idx=cv_idx, group_duplicates=False), TASK, 42)["valid"]
        valid = split(rows, params(method=method, cv_idx=cv_idx), TASK, 42)["valid"]
        first = {"00040": "00003", "00077": "00003", "00011": "00010", "00099": "00098"}
        assert ids(valid) == {one for one in ids(rows) if first.get(one, one) in ids(plain)}
        folds.append(ids(valid))
    assert sum(map(len, folds)) == len(set.union(*folds)) == 100


def test_duplicates_are_listed_with_labels_parts_and_sides() -> None:
    rows = pd.concat([table(["a", "b"] * 10), table([""] * 2, "test")], ignore_index=True)
    rows = copies(rows, [4, 5], [0, 8, 20])
    off = split(rows, params(group_duplicates=False), TASK, seed=1)
    valid = ids(off["valid"])
    sides = {place: "valid" if f"{place:05d}" in valid else "train" for place in (0, 4, 5, 8)}
    expected = [
        ["00000", "a", "train", sides[0], "00008", "a", "train", sides[8], "exact", 0.0],
        ["00004", "a", "train", sides[4], "00005", "b", "train", sides[5], "exact", 0.0],
        ["00000", "a", "train", sides[0], "00000", "", "test", "test", "exact", 0.0],
    ]
    assert off["duplicates"].to_numpy().tolist() == expected
    assert off["duplicates"].columns.tolist() == [
        "id", "label", "part", "side", "other_id", "other_label", "other_part", "other_side", "kind", "distance",
    ]  # fmt: skip


def test_of_three_alike_the_two_nearest_links_are_listed() -> None:
    one = np.random.default_rng(0).integers(-90, 90, 256)
    thumbs = [one, one + 2 * (np.arange(256) % 2), one + 3 * (np.arange(256) % 2)]
    rows = table(["a", "b"] * 10)
    rows.loc[[3, 6, 9], "thumb"] = [bytes(thumb.astype(np.int8)) for thumb in thumbs]
    found = split(rows, params(), TASK, 42)["duplicates"]
    assert found[["id", "other_id", "kind"]].to_numpy().tolist() == [
        ["00006", "00009", "near"],
        ["00003", "00006", "near"],
    ]
    assert 0 < found["distance"][0] < found["distance"][1] < 0.001


def test_folders_a_straddling_group_trains() -> None:
    rows = pd.concat([table(["a", "b", "a"]), table(["a", "b", "b"], "valid")], ignore_index=True)
    rows = copies(rows, [0, 3], [4, 5])
    parts = split(rows, params(method="folders"), TASK, seed=1)
    assert parts["train"]["sha256"].tolist() == ["train00000", "train00001", "train00002", "train00000"]
    assert parts["valid"]["id"].tolist() == ["00001", "00002"]
    kept = split(rows, params(method="folders", group_duplicates=False), TASK, seed=1)
    assert len(kept["valid"]) == 3
    assert "duplicates in train and valid: 1: see data/split/duplicates.csv" in said(
        rows, method="folders", group_duplicates=False
    )


def test_remarks() -> None:
    rows = pd.concat([table(["a", "b", "a", "c"]), table(["a", "b"], "valid"), table(["", ""], "test")])
    rows = copies(rows.reset_index(drop=True), [0, 1], [2, 6], [4, 7])
    assert said(rows, method="folders") == [
        "no valid picture of 1 of 3 classes (c): not measured",
        "duplicates in test and train: 1: see data/split/duplicates.csv",
        "duplicates in test and valid: 1: see data/split/duplicates.csv",
        "3 duplicates among 8 pictures: reduce split.max_distance if they differ: see data/split/duplicates.csv",
        "duplicates with different labels: 1: see data/split/duplicates.csv",
    ]
    assert said(table(["a", "b"] * 20)) == []
    flood = copies(table(["a", "b"] * 20), [0, 2, 4], [7, 9, 11, 13])
    assert said(flood) == [
        "5 duplicates among 40 pictures: reduce split.max_distance if they differ: see data/split/duplicates.csv"
    ]


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_a_draw_that_mixes_valid_into_train_is_said(method: str) -> None:
    rows = pd.concat([table(["a", "b"] * 20), table(["a", "b"] * 5, "valid")], ignore_index=True)
    assert said(rows, method=method) == [
        f"split.method = {method} draws from train/ and valid/ together: 10 pictures of valid/ are among those that "
        "train or validate; set split.method to folders to keep the folders as they are"
    ]
    assert said(rows, method="folders") == []


@pytest.mark.parametrize("method", ["random", "stratified"])
def test_groups_of_a_column_stay_together(method: str) -> None:
    groups = [f"g{i // 4:02d}" for i in range(120)]
    rows = table(["a", "b", "b"] * 40, groups=groups)
    folds = [split(rows, params(method=method, cv_idx=k, group_column="who"), TASK, 42)["valid"] for k in range(5)]
    assert sorted(pd.concat(folds)["id"]) == rows["id"].tolist()
    for fold in folds:
        chosen = set(rows["group"][rows["id"].isin(fold["id"])])
        assert ids(fold) == set(rows["id"][rows["group"].isin(chosen)])
        assert len(chosen) == 6
    if method == "random":
        assert set(rows["group"][rows["id"].isin(folds[2]["id"])]) == {f"g{i:02d}" for i in get_cv_idxs(30, 2)}


def test_stratified_groups_keep_shares_that_random_ones_do_not() -> None:
    groups = [f"g{i // 3:02d}" for i in range(90)]
    rows = table(["a" if i < 30 else "b" for i in range(90)], groups=groups)
    shares = {
        method: [
            (split(rows, params(method=method, cv_idx=k, group_column="who"), TASK, 7)["valid"]["label"] == "a").sum()
            for k in range(5)
        ]
        for method in ("random", "stratified")
    }
    assert shares["stratified"] == [6] * 5
    assert shares["random"] != [6] * 5


def test_duplicates_merge_groups() -> None:
    rows = copies(table(["a", "b"] * 20, groups=[f"g{i // 2:02d}" for i in range(40)]), [0, 39])
    for cv_idx in range(4):
        valid = ids(split(rows, params(cv_idx=cv_idx, group_column="who"), TASK, 42)["valid"])
        assert {"00000", "00001", "00038", "00039"} <= valid or not {"00000", "00001", "00038", "00039"} & valid
    folds = [
        ids(split(rows, params(cv_idx=k, group_column="who", group_duplicates=False), TASK, 42)["valid"])
        for k in range(5)
    ]
    assert any(("00000" in fold) != ("00039" in fold) for fold in folds)


def test_scikit_learn_is_imported_for_stratified_groups_alone() -> None:
    program = "import sys, stages.split; print('sklearn' in sys.modules, 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "False False\n"
