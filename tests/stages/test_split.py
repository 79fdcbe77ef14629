"""Splits: fast.ai's golden values, and what a fold must hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.common.folds import get_cv_idxs, stratified_idxs
from stages.common.stage import StageError
from stages.split import SplitParams, split

DOG_BREEDS = Path(__file__).parents[3] / "shared" / "data" / "dogbreeds_labels.csv"


def table(labels: list[str], part: str = "train") -> pd.DataFrame:
    ids = [f"{i:05d}" for i in range(len(labels))]
    return pd.DataFrame({"id": ids, "label": labels, "part": part, "sha256": ids})


def params(**changes: object) -> SplitParams:
    return SplitParams.model_validate({"method": "random", "cv_idx": 0, "valid_pct": 0.2} | changes)


def test_golden_values_of_the_course() -> None:
    idxs = get_cv_idxs(10222, cv_idx=4)
    assert len(idxs) == 2044
    assert idxs[:3].tolist() == [3694, 1573, 6281]
    assert idxs[-3:].tolist() == [5734, 5191, 5390]


@pytest.mark.skipif(not DOG_BREEDS.exists(), reason="the labels of the competition are not here")
def test_golden_class_counts_of_the_dog_breeds() -> None:
    breeds = pd.read_csv(DOG_BREEDS)["breed"]
    assert len(breeds) == 10222
    assert breeds.value_counts().head(10).to_dict() == {
        "scottish_deerhound": 126, "maltese_dog": 117, "afghan_hound": 116, "entlebucher": 115,
        "bernese_mountain_dog": 114, "shih-tzu": 112, "great_pyrenees": 111, "pomeranian": 111, "basenji": 110,
        "samoyed": 109,
    }  # fmt: skip
    parts = split(table(breeds.tolist()), params(cv_idx=4), seed=42)
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


def test_folders_give_the_split_and_test_has_no_labels() -> None:
    rows = pd.concat([table(["a", "b"]), table(["a"], "valid"), table(["", ""], "test")])
    parts = split(rows, params(method="folders"), seed=1)
    assert [len(parts[part]) for part in ("train", "valid", "test")] == [2, 1, 2]
    assert parts["test"]["label"].tolist() == ["", ""]


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (table(["a", "b"] * 10), {"method": "folders"}, "no picture came from a valid/ folder"),
        (table(["a", "b"] * 10), {"cv_idx": 5}, "leaves no valid picture of 20"),
        (table(["a", "b"] * 10 + ["c"]), {"valid_pct": 0.99}, "no train picture of"),
    ],
)
def test_errors(rows: pd.DataFrame, changes: dict[str, object], message: str) -> None:
    with pytest.raises(StageError, match=message):
        split(rows, params(**changes), seed=42)
