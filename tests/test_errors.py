"""What a user does wrong: one clear line, an exit code that is not 0, nothing half-written."""

import pytest

from tests.conftest import Project


@pytest.mark.parametrize(
    ("stage", "changes", "message"),
    [
        ("train_full", {"train_full.n_cycle": 3}, "train_full: params.yaml: unknown key `train_full.n_cycle`"),
        ("train_head", {"train_head.n_cycles": 1.5}, "train_head: params.yaml: `train_head.n_cycles` is 1.5"),
        ("train_full", {"train_full.lrs": ["1e-4", 0.001, 0.01]}, "`train_full.lrs.0` is '1e-4'"),
        ("train_full", {"train_full.cycle_mult": [1, 2, 3]}, "train_full.cycle_mult has 3 numbers"),
        ("ingest", {"ingest.label_column": "breed"}, "ingest: pictures/labels.csv has no column `breed`"),
        ("ingest", {"split.group_column": "patient"}, "has no column `patient` (split.group_column); it has id, label"),
        ("split", {"split.max_distance": 2}, "split: params.yaml: `split.max_distance` is 2"),
        ("ingest", {"ingest.layout": "folders"}, "ingest: no pictures/valid"),
        ("train_full", {"train_full.schedule": "cosine"}, "`train_full.schedule` is 'cosine'"),
        ("train_full", {"train_full.size_px": [32, 32]}, "train_full.size_px is [32, 32]: name each size once"),
        ("train_full", {"train_full.lrs": [0.0, 0.0, 0.0]}, "`train_full.lrs` is [0.0, 0.0, 0.0]: "),
        ("train_head", {"train_head.lr": 0.0}, "`train_head.lr` is 0.0: Input should be greater than 0"),
        ("train_head", {"train_head.batch_size": 1}, "`train_head.batch_size` is 1"),
        ("train_head", {"head.dropout": [0.1]}, "`head.dropout` is [0.1]"),
        ("augment", {"transforms.max_zoom": 0.5}, "`transforms.max_zoom` is 0.5"),
        ("split", {"seed": -1}, "`seed` is -1"),
        ("split", {"seed": "7"}, "`seed` is '7'"),
        ("precompute", {"device.name": "cuda"}, "torch finds no CUDA device"),
        ("backbone", {"backbone.name": "resnet999"}, "which timm does not know"),
    ],
)
def test_one_clear_line(project: Project, stage: str, changes: dict[str, object], message: str) -> None:
    before = {p: p.stat().st_mtime_ns for p in (project.folder / "data" / stage).rglob("*") if p.is_file()}
    project.params(changes)
    done = project.run("python", "-m", f"stages.{stage}", check=False)
    assert done.returncode == 1
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    after = {p: p.stat().st_mtime_ns for p in (project.folder / "data" / stage).rglob("*") if p.is_file()}
    assert after == before
    assert not list((project.folder / "data").rglob(".*.tmp"))


def test_a_folder_that_is_not_there_stops_dvc_too(project: Project) -> None:
    project.params({"ingest.path": "nowhere"})
    done = project.run("dvc", "repro", "evaluate", check=False)
    assert done.returncode == 255
    assert "nowhere" in done.stderr
    done = project.run("python", "-m", "stages.ingest", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no folder nowhere: ingest.path must name the folder of the pictures" in done.stderr


def test_a_picture_changed_behind_ingests_back(project: Project) -> None:
    (project.folder / "pictures/train/red03.jpg").write_bytes(b"other")
    project.run("python", "-m", "stages.resize")  # the item store has its result: the file is not read
    project.params({"items.max_gib": 0})
    done = project.run("python", "-m", "stages.resize", check=False)
    assert done.returncode == 1
    assert "red03.jpg is not the file that ingest read: run `dvc repro ingest`" in done.stderr


def test_a_failed_stage_fails_dvc_and_nothing_below_runs(project: Project) -> None:
    project.params({"train_head.lr": 0.5, "augment.lr": "fast"})
    done = project.run("dvc", "repro", "evaluate", check=False)
    assert done.returncode == 255
    assert "augment: params.yaml: `augment.lr` is 'fast'" in done.stderr
    assert "Running stage 'train_head'" in done.stdout
    assert "Running stage 'unfreeze'" not in done.stdout
    project.params({"augment.lr": 0.001})
    assert project.repro("evaluate") == ["augment", "unfreeze", "train_full", "tta", "evaluate"]


def test_progress_is_silent_without_a_terminal(project: Project) -> None:
    done = project.run("python", "-m", "stages.train_head")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("argument", "code", "message"),
    [
        (
            "--help",
            0,
            "The settings of the stage are in params.yaml. Run the stage from the top folder of the project.",
        ),
        ("--now", 2, "error: unrecognized arguments: --now"),
        ("now", 1, "tta: 'now' is not a setting: write KEY=VALUE, for example split.cv_idx=1\n"),
    ],
)
def test_a_stage_takes_a_root_and_params_alone(project: Project, argument: str, code: int, message: str) -> None:
    (project.folder / "data/tta/valid.parquet").unlink()
    done = project.run("python", "-m", "stages.tta", argument, check=False)
    assert done.returncode == code
    assert message in done.stdout + done.stderr
    assert ("tta: plain and averaged predictions" in done.stdout) == (argument == "--help")
    assert not (project.folder / "data/tta/valid.parquet").exists()
