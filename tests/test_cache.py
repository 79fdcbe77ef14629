"""The cache tells the truth: each change reruns exactly the stages that it should, in a real git and DVC repository."""

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from stages.training.compute import device
from tests.conftest import Project, draw_picture

ALL = [
    "ingest", "split", "resize", "backbone", "precompute", "lr_find", "train_head", "augment", "unfreeze",
    "train_full", "tta", "evaluate",
]  # fmt: skip
OTHER_PRECISION = "float32" if device.cpu_has_bfloat16() else "bfloat16"
FROM_HEAD = ["train_head", "augment", "unfreeze", "train_full", "tta", "evaluate"]
TRAINING = ["lr_find", *FROM_HEAD]
PICTURE_WORK = ["resize", "precompute"]


def check(project: Project, did: list[str]) -> None:
    """`did` ran, nothing else did, and a second run does nothing."""
    ran = project.repro("evaluate", "lr_find")
    assert sorted(ran) == sorted(did)
    assert project.repro("evaluate", "lr_find") == []


@pytest.mark.parametrize(
    ("key", "value", "did"),
    [
        pytest.param("device.precision", OTHER_PRECISION, ["precompute", *TRAINING], marks=pytest.mark.slow),
        ("ingest.max_rejected_pct", 7, ["ingest"]),
        ("split.cv_idx", 1, ["split", *TRAINING]),
        ("split.group_duplicates", False, ["split"]),  # there are none
        ("split.max_distance", 0.0, ["split"]),
        pytest.param("resize.jpeg_quality", 60, ["resize", "precompute", *TRAINING], marks=pytest.mark.slow),
        pytest.param("backbone.crop_pct", 0.9, ["backbone", "precompute", *TRAINING], marks=pytest.mark.slow),
        pytest.param("precompute.size_px", 40, ["precompute", *TRAINING], marks=pytest.mark.slow),
        pytest.param("head.hidden", 8, TRAINING, marks=pytest.mark.slow),
        pytest.param("optimizer.weight_decay", 0.1, TRAINING, marks=pytest.mark.slow),
        pytest.param(
            "transforms.max_zoom", 1.3, ["augment", "unfreeze", "train_full", "tta", "evaluate"], marks=pytest.mark.slow
        ),
        ("lr_find.n_iterations", 10, ["lr_find"]),
        pytest.param("train_head.lr", 0.01, FROM_HEAD, marks=pytest.mark.slow),
        pytest.param("augment.lr", 0.01, FROM_HEAD[1:], marks=pytest.mark.slow),
        pytest.param("augment.views", 1, FROM_HEAD[1:], marks=pytest.mark.slow),
        ("unfreeze.n_iterations", 4, ["unfreeze"]),
        pytest.param("train_full.n_cycles", 2, FROM_HEAD[3:], marks=pytest.mark.slow),
        ("tta.n_aug", 3, FROM_HEAD[4:]),
        pytest.param("seed", 7, ["split", *TRAINING], marks=pytest.mark.slow),
    ],
)
def test_one_param(project: Project, key: str, value: object, did: list[str]) -> None:
    project.params({key: value})
    check(project, did)


def test_nothing_changed(project: Project) -> None:
    check(project, did=[])


def test_one_picture(project: Project) -> None:
    draw_picture(project.folder / "pictures/train/red03.jpg", "red", 999)
    check(project, did=[stage for stage in ALL if stage != "backbone"])


def test_one_label_resizes_and_precomputes_nothing(project: Project) -> None:
    labels = project.folder / "pictures/labels.csv"
    labels.write_text(labels.read_text(encoding="utf-8").replace("red03,red", "red03,green"), encoding="utf-8")
    check(project, did=["ingest", "split", *TRAINING])


def test_a_label_of_valid_trains_no_range_test(project: Project) -> None:
    id_, label, _ = (project.folder / "data/split/valid.csv").read_text(encoding="utf-8").splitlines()[1].split(",")
    labels = project.folder / "pictures/labels.csv"
    other = "red" if label == "green" else "green"
    labels.write_text(labels.read_text(encoding="utf-8").replace(f"{id_},{label}", f"{id_},{other}"), encoding="utf-8")
    check(project, did=["ingest", "split", "train_head", "augment", "train_full", "tta", "evaluate"])


@pytest.mark.slow
def test_another_label_column_resizes_and_precomputes_nothing(project: Project) -> None:
    project.params({"ingest.label_column": "other"})
    check(project, did=["ingest", "split", *TRAINING])


@pytest.mark.slow
def test_a_double_moves_when_doubles_are_grouped(project: Project) -> None:
    project.params({"split.group_duplicates": False})
    train, valid = (pd.read_csv(project.folder / f"data/split/{part}.csv") for part in ("train", "valid"))
    one = valid[valid["id"].str.startswith("red")].iloc[0]["id"]
    other = train[train["id"].str.startswith("red") & (train["id"] < one)].iloc[0]["id"]
    pictures = project.folder / "pictures/train"
    Image.open(pictures / f"{other}.jpg").save(pictures / f"{one}.jpg", quality=90)
    check(project, did=[stage for stage in ALL if stage != "backbone"])
    project.params({"split.group_duplicates": True})
    check(project, did=["split", *TRAINING])
    train, valid = (pd.read_csv(project.folder / f"data/split/{part}.csv") for part in ("train", "valid"))
    assert {one, other} <= set(train["id"])
    doubles = pd.read_csv(project.folder / "data/split/duplicates.csv")
    assert doubles[["id", "side", "other_id", "other_side"]].to_numpy().tolist() == [[other, "train", one, "train"]]


@pytest.mark.slow
def test_a_group_column_resizes_and_precomputes_nothing(project: Project) -> None:
    project.params({"split.group_column": "other", "split.valid_pct": 0.5})
    check(project, did=["ingest", "split", *TRAINING])
    labels = pd.read_csv(project.folder / "pictures/labels.csv").set_index("id")["other"]
    sides = [pd.read_csv(project.folder / f"data/split/{part}.csv")["id"] for part in ("train", "valid")]
    assert sorted(set(labels[side]) for side in sides) == [{"a"}, {"b"}]


def test_shuffled_csv_stops_at_ingest(project: Project) -> None:
    labels = project.folder / "pictures/labels.csv"
    header, *rows = labels.read_text(encoding="utf-8").splitlines()
    labels.write_text("\n".join([header, *reversed(rows)]) + "\n", encoding="utf-8")
    check(project, did=["ingest"])


@pytest.mark.parametrize(
    ("module", "did"),
    [
        ("stages/ingest.py", ["ingest"]),
        ("stages/train_head.py", ["train_head"]),
        ("stages/reporting/results/result_plots.py", ["evaluate"]),
        pytest.param(
            "stages/training/loop/lr_finder.py",
            ["lr_find", "train_head", "augment", "unfreeze", "train_full"],
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "stages/vision/batches/transforms.py",
            ["resize", "backbone", "precompute", "augment", "unfreeze", "train_full", "tta"],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_comment_stops_where_the_bytes_are_equal(project: Project, module: str, did: list[str]) -> None:
    path = project.folder / module
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    check(project, did)


@pytest.mark.slow
def test_forced_again_gives_the_same_bytes(project: Project) -> None:
    before = project.md5s()
    assert sorted(project.repro("--force", "evaluate", "lr_find")) == sorted(ALL)
    assert project.md5s() == before


def test_back_to_an_old_param_runs_nothing(project: Project) -> None:
    project.params({"tta.n_aug": 3})
    project.repro("evaluate")
    project.params({"tta.n_aug": 2})
    assert project.repro("evaluate") == []


def test_a_fresh_clone_restores_everything_from_a_remote(project: Project, tmp_path: Path) -> None:
    remote, clone = tmp_path / "remote", tmp_path / "clone"
    project.run("dvc", "remote", "add", "-d", "there", str(remote))
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "all run")
    project.run("dvc", "push", "-q")
    project.run("git", "clone", "-q", str(project.folder), str(clone))
    other = Project(clone, project.shim)
    other.run("dvc", "pull", "-q", "--with-deps", "evaluate", "lr_find")
    assert other.repro("evaluate", "lr_find") == []
    assert (clone / "data/evaluate/metrics.json").exists()
