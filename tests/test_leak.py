"""A planted leak: copies of train's pictures, resized and saved anew, that lie in valid and in test too."""

from pathlib import Path

import pytest

from stages.ingest import IngestParams, ingest
from stages.split import SplitParams, split
from stages.store.items import Items, ItemsParams
from stages.tasks.single_label import SingleLabel
from tests.dataset.test_near_duplicates import copied, photo

SCALES, QUALITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.3), (50, 60, 70, 80, 90)


def leaky(folder: Path) -> Path:
    """30 pictures each of two classes; of the first 20 a copy, the even ones in valid, the odd ones in test."""
    for number in range(60):
        label, part = ("cat", "dog")[number % 2], "train" if number < 40 else "valid"
        path = folder / part / label / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = photo(number)
        image.save(path)
        if number < 20:
            other = folder / ("valid/dog" if number % 2 else "test") / f"copy{number:02d}.jpg"
            other.parent.mkdir(parents=True, exist_ok=True)
            copied(image, SCALES[number % 6], QUALITIES[number % 5]).save(other, quality=90)
    return folder


@pytest.mark.parametrize("method", ["folders", "random"])
def test_copies_are_found_and_kept_on_one_side(tmp_path: Path, method: str) -> None:
    values = {
        "path": "", "layout": "folders", "id_column": "", "label_column": "", "max_megapixels": 1,
        "max_rejected_pct": 0.0, "depth": "used",
    }  # fmt: skip
    items = Items("ingest", {}, ItemsParams(max_gib=0))
    table, _ = ingest(leaky(tmp_path), IngestParams.model_validate(values), items, None)

    def parts(group_duplicates: bool) -> dict[str, set[str]]:
        given = {"method": method, "cv_idx": 0, "valid_pct": 0.2, "group_column": None, "max_distance": 0.001}
        params = SplitParams.model_validate(given | {"group_duplicates": group_duplicates})
        found = split(table, params, SingleLabel, 42)
        pairs = found.pop("duplicates")
        pictures = {f"{row.id} {row.other_id}" for row in pairs.itertuples()}
        assert pictures == {f"dog/{n:02d} dog/copy{n:02d}" if n % 2 else f"cat/{n:02d} copy{n:02d}" for n in range(20)}
        assert (pairs["kind"] == "near").all()
        assert pairs["distance"].between(0, 0.001).all()
        return {part: set(rows["id"]) for part, rows in found.items()}

    grouped, plain = parts(group_duplicates=True), parts(group_duplicates=False)
    odd = range(1, 20, 2)
    together = [(f"dog/{n:02d}" in grouped["valid"]) == (f"dog/copy{n:02d}" in grouped["valid"]) for n in odd]
    apart = [(f"dog/{n:02d}" in plain["valid"]) != (f"dog/copy{n:02d}" in plain["valid"]) for n in odd]
    assert all(together)
    assert any(apart)
    assert grouped["test"] == plain["test"] == {f"copy{n:02d}" for n in range(0, 20, 2)}
    if method == "folders":
        assert all(apart)
        assert grouped["valid"] == plain["valid"] - {f"dog/copy{n:02d}" for n in odd}
        assert grouped["train"] == plain["train"] | {f"dog/copy{n:02d}" for n in odd}
