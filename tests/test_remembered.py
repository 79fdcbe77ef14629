"""Work is remembered per picture: a change costs what it changes, and the bytes are those of a run from nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import Project, draw_picture

STAGES = ("ingest", "resize", "precompute")


def add(folder: Path) -> None:
    draw_picture(folder / "train/red99.jpg", "red", 99)
    with (folder / "labels.csv").open("a", encoding="utf-8") as file:
        file.write("red99,red,a\n")


def replace(folder: Path) -> None:
    draw_picture(folder / "train/red03.jpg", "red", 999)


def remove(folder: Path) -> None:
    (folder / "train/red03.jpg").unlink()
    relabel(folder, "red03,red,a\n", "")


def relabel(folder: Path, old: str = "red03,red", new: str = "red03,blue") -> None:
    path = folder / "labels.csv"
    assert old in path.read_text(encoding="utf-8")
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")


def shuffle(folder: Path) -> None:
    path = folder / "labels.csv"
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([header, *np.random.default_rng(0).permutation(rows)]) + "\n", encoding="utf-8")


def rename(folder: Path) -> None:
    (folder / "train/red03.jpg").rename(folder / "train/red33.jpg")
    relabel(folder, "red03,", "red33,")


@pytest.mark.parametrize(
    ("change", "n_pictures", "n_new"),
    [
        (add, 41, 1),
        pytest.param(replace, 40, 1, marks=pytest.mark.slow),
        (remove, 39, 0),
        pytest.param(relabel, 40, 0, marks=pytest.mark.slow),
        pytest.param(shuffle, 40, 0, marks=pytest.mark.slow),
        (rename, 40, 0),
    ],
)
def test_a_change_costs_what_it_changes(
    project: Project, tmp_path: Path, change: Callable[[Path], None], n_pictures: int, n_new: int
) -> None:
    receipts = project.folder / ".unfreeze/receipts"
    for stage in STAGES:
        (receipts / f"{stage}.json").unlink()
    change(project.folder / "pictures")
    ran = project.repro("split", "precompute")
    for stage in set(STAGES) & set(ran):
        receipt = json.loads((receipts / f"{stage}.json").read_text(encoding="utf-8"))
        assert (receipt["items"], receipt["computed"]) == (n_pictures, n_new)
    remembered = project.md5s()
    project.run("env", f"UNFREEZE_HOME={tmp_path / 'empty'}", "dvc", "repro", "--force", "split", "precompute")
    computed = json.loads((receipts / "precompute.json").read_text(encoding="utf-8"))["computed"]
    assert computed == n_pictures
    assert project.md5s() == remembered


def test_views_are_computed_once_and_another_rate_computes_none(project: Project, tmp_path: Path) -> None:
    def computed() -> int:
        return int(
            json.loads((project.folder / ".unfreeze/receipts/augment.json").read_text(encoding="utf-8"))["computed"]
        )

    project.params({"augment.views": 2, "augment.cycle_len": 3})
    assert project.repro("augment") == ["augment"]
    assert computed() == 2 * 36  # train and valid, not test
    project.params({"augment.lr": 0.01})
    assert project.repro("augment") == ["augment"]
    assert computed() == 0
    project.params({"split.cv_idx": 1})
    project.repro("augment")
    assert computed() == 0
    remembered = project.md5s()
    project.run("env", f"UNFREEZE_HOME={tmp_path / 'empty'}", "dvc", "repro", "--force", "--single-item", "augment")
    assert computed() == 2 * 36
    assert project.md5s() == remembered


@pytest.mark.slow
def test_a_view_does_not_depend_on_the_others_that_are_made_with_it(project: Project, tmp_path: Path) -> None:
    """Nothing turns and half are mirrored: alone a picture may stay as it is where among others all are resampled."""
    project.params({"augment.views": 6, "transforms.max_rotate_deg": 0.0})
    project.repro("augment")
    add(project.folder / "pictures")
    project.repro("augment")  # the new one's views are made alone
    remembered = project.md5s()
    project.run("env", f"UNFREEZE_HOME={tmp_path / 'empty'}", "dvc", "repro", "--force", "--single-item", "augment")
    assert project.md5s() == remembered


def test_views_want_to_be_remembered(project: Project) -> None:
    project.params({"augment.views": 3, "items.max_gib": 0})
    done = project.run("python", "-m", "stages.augment", check=False)
    assert done.stderr.startswith("augment: augment.views needs the item store, and items.max_gib is 0")
