"""A worker's clone goes from commit to commit, and nothing of anybody's is lost on the way."""

import sys
from pathlib import Path

import pytest

from tests.conftest import Project

GO = "from flows.recipe import check_out; check_out('main')"


@pytest.fixture
def origin(project: Project) -> Project:
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "all is up to date")
    project.run("git", "branch", "-M", "main")
    return project


@pytest.fixture
def clone(origin: Project, tmp_path: Path) -> Project:
    origin.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    return Project(tmp_path / "clone", origin.shim)


def go(clone: Project, check: bool = True) -> str:
    return clone.run(sys.executable, "-c", GO, check=check).stderr


def commit(project: Project, message: str = "a change") -> None:
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", message)


def lock(project: Project) -> bytes:
    return (project.folder / "dvc.lock").read_bytes()


def test_a_result_that_somebody_committed_counts(origin: Project, clone: Project) -> None:
    origin.params({"tta.n_aug": 3})
    origin.repro("evaluate")
    commit(origin)
    go(clone)
    assert lock(clone) == lock(origin)


def test_a_result_of_this_clone_comes_along(origin: Project, clone: Project) -> None:
    text = lock(clone).decode()
    assert "n_aug: 2" in text
    (clone.folder / "dvc.lock").write_text(text.replace("n_aug: 2", "n_aug: 7"), encoding="utf-8")
    (origin.folder / "notes.txt").write_text("a commit that is no result", encoding="utf-8")
    commit(origin)
    go(clone)
    assert "n_aug: 7" in lock(clone).decode()
    assert (clone.folder / "notes.txt").exists()


def test_a_commit_that_is_broken_does_not_keep_the_clone(origin: Project, clone: Project) -> None:
    whole = (origin.folder / "dvc.yaml").read_text(encoding="utf-8")
    (origin.folder / "dvc.yaml").write_text(whole + " : [", encoding="utf-8")
    commit(origin)
    assert "dvc.yaml" in go(clone, check=False)
    (origin.folder / "dvc.yaml").write_text(whole, encoding="utf-8")
    commit(origin)
    go(clone)
    assert (clone.folder / "dvc.yaml").read_text(encoding="utf-8") == whole


def test_a_tag_that_was_moved(origin: Project, clone: Project) -> None:
    origin.run("git", "tag", "nightly")
    go(clone)
    (origin.folder / "notes.txt").write_text("new", encoding="utf-8")
    commit(origin)
    origin.run("git", "tag", "-f", "nightly")
    go(clone)
    assert (clone.folder / "notes.txt").exists()


def test_a_commit_made_in_the_workers_clone_stays_to_be_found(origin: Project, clone: Project) -> None:
    go(clone)  # on no branch from now on
    clone.run("git", "config", "user.email", "test@example.com")
    clone.run("git", "config", "user.name", "test")
    clone.params({"seed": 8})
    commit(clone, "the results of a night")
    made = clone.run("git", "rev-parse", "HEAD").stdout.strip()
    go(clone)
    assert clone.run("git", "branch", "--contains", made).stdout.strip() == f"kept-{made[:7]}"


def test_what_dvc_and_stages_write_is_not_written_by_hand(origin: Project, clone: Project) -> None:
    """A folder of metrics that git holds, a name that git would quote, and the .gitignore of a new output."""
    for project in (origin, clone):
        (project.folder / "data/größe").mkdir()
        (project.folder / "data/größe/metrics.json").write_text("{}", encoding="utf-8")
        (project.folder / "data/größe/.gitignore").write_text("/x\n", encoding="utf-8")
    (clone.folder / "data/größe/.gitignore").write_text("/x\n/y\n", encoding="utf-8")
    commit(origin)
    go(clone)
    text = (clone.folder / "dvc.lock").read_text(encoding="utf-8")
    (clone.folder / "dvc.lock").write_text(
        text.replace("path: data/lr_find/curve.csv", "path: data/größe"), encoding="utf-8"
    )
    (clone.folder / "data/größe/metrics.json").write_text('{"new": 1}', encoding="utf-8")
    go(clone)


@pytest.mark.parametrize("file", ["notes.txt", "stages/tta.py"])
def test_what_was_written_by_hand_is_not_thrown_away(origin: Project, clone: Project, file: str) -> None:
    (origin.folder / file).write_text("theirs", encoding="utf-8")
    commit(origin)
    (clone.folder / file).write_text("mine", encoding="utf-8")
    assert file in go(clone, check=False)
    assert (clone.folder / file).read_text(encoding="utf-8") == "mine"
