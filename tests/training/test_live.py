"""Live curves: what the history holds, each row once, and nothing of it in an output."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from stages.runtime import folders
from stages.training.loop import live
from stages.training.loop.history import History
from tests.conftest import ROOT, Project


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def history(n_epochs: int, n_batches: int) -> History:
    steps = [{"step": i, "lr": i / 10, "loss": i / 100} for i in range(n_epochs * n_batches)]
    rows = [{"epoch": e + 1, "train_loss": e / 2, "valid_loss": e / 4, "accuracy": e / 8} for e in range(n_epochs)]
    return History(rows, steps)


def curve(name: str) -> pd.DataFrame:
    return pd.read_csv(live.FOLDER / f"toy/plots/metrics/{name}.tsv", sep="\t")


def test_curves_hold_the_epochs_and_a_few_steps() -> None:
    whole = history(3, 60)
    so_far = History()
    curves = live.Curves("toy", so_far, 60)
    for step in whole.iterations:
        so_far.iterations.append(step)
        curves.after_batch()
        if len(so_far.iterations) % 60 == 0:
            so_far.epochs.append(whole.epochs[len(so_far.epochs)])
            curves.draw()
    assert curve("accuracy").to_dict("list") == {"step": [1, 2, 3], "accuracy": [0, 0.125, 0.25]}
    assert curve("batch/loss")["step"].tolist() == list(range(0, 180, 3))
    assert curve("batch/lr")["lr"].tolist() == [i / 10 for i in range(0, 180, 3)]
    assert json.loads((live.FOLDER / "toy/metrics.json").read_text(encoding="utf-8"))["valid_loss"] == 0.5


def test_a_training_that_goes_on_has_no_row_twice() -> None:
    live.Curves("toy", history(3, 40), 40)
    live.Curves("toy", history(2, 40), 40)  # killed, and back at an earlier checkpoint
    assert curve("valid_loss")["step"].tolist() == [1, 2]
    assert curve("batch/loss")["step"].tolist() == list(range(0, 80, 2))


def test_two_runs_of_a_stage_have_curves_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds train at the same time."""
    live.Curves("toy", history(3, 40), 40)
    monkeypatch.setattr(folders, "_run", folders.Run(Path("data/folds/1")))
    live.Curves("toy", history(2, 40), 40)
    assert curve("valid_loss")["step"].tolist() == [1, 2, 3]
    other = pd.read_csv(live.FOLDER / "data/folds/1/toy/plots/metrics/valid_loss.tsv", sep="\t")
    assert other["step"].tolist() == [1, 2]


def test_where_it_cannot_be_written_training_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".unfreeze").write_text("a file", encoding="utf-8")
    curves = live.Curves("toy", history(1, 40), 40)
    curves.draw()
    assert capsys.readouterr().err.startswith("no live curves: ")


def test_files_are_laid_out_as_dvclives() -> None:
    """DVC and its extension for VS Code read this layout."""
    live.Curves("toy", history(1, 1), 1)
    files = {str(path.relative_to(live.FOLDER)): path.read_bytes() for path in live.FOLDER.rglob("*.*")}
    assert files.pop("toy/metrics.json").replace(b" ", b"").replace(b"\n", b"") == (
        b'{"batch":{"loss":0.0,"lr":0.0},"step":1,"train_loss":0.0,"valid_loss":0.0,"accuracy":0.0}'
    )
    assert files == {
        "toy/plots/metrics/batch/loss.tsv": b"step\tloss\n0\t0.0\n",
        "toy/plots/metrics/batch/lr.tsv": b"step\tlr\n0\t0.0\n",
        "toy/plots/metrics/train_loss.tsv": b"step\ttrain_loss\n1\t0.0\n",
        "toy/plots/metrics/valid_loss.tsv": b"step\tvalid_loss\n1\t0.0\n",
        "toy/plots/metrics/accuracy.tsv": b"step\taccuracy\n1\t0.0\n",
    }


def test_a_loss_that_is_no_number_can_be_shown() -> None:
    so_far = history(0, 1)
    so_far.iterations.append({"step": 0, "lr": 0.1, "loss": float("nan")})
    live.Curves("toy", so_far, 1)
    assert (live.FOLDER / "toy/plots/metrics/batch/loss.tsv").read_text(encoding="utf-8") == "step\tloss\n0\tnan\n"


def test_dvc_is_not_loaded() -> None:
    program = "import sys\nfrom stages.training.loop import fit\nprint({'dvc', 'dvclive'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout == "set()\n"


def test_outputs_are_the_same_without_them(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = project.md5s()
    assert (project.folder / ".unfreeze/live/train_full/plots/metrics/accuracy.tsv").exists()
    monkeypatch.setenv("UNFREEZE_LIVE", "off")
    for stage in ("train_head", "augment", "train_full"):
        project.run("rm", "-rf", ".unfreeze/live")
        project.repro("-f", "-s", stage)
        assert not (project.folder / ".unfreeze/live").exists()
    assert project.md5s() == before
