"""The project in a subfolder of a git repository (`dvc init --subdir`): all works there as at the top."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, copy_project
from tests.flows.conftest import Flows, Server

STAGES = {
    "one": {"cmd": "mkdir -p data/one && cp params.yaml data/one/x", "params": ["x"], "outs": ["data/one/x"]},
    "evaluate": {
        "cmd": """mkdir -p data/evaluate && sed 's/x: /{"loss": 0./; s/$/}/' data/one/x > data/evaluate/metrics.json""",
        "deps": ["data/one/x"],
        "metrics": [{"data/evaluate/metrics.json": {"cache": False}}],
        "meta": {"pool": "far"},
    },
}
GO = "from flows.recipe import check_out; check_out('main')"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    origin = tmp_path_factory.mktemp("made")
    project = Project(origin / "sub ü/project", shim=None)
    copy_project(project.folder)
    (project.folder / "params.yaml").write_text("x: 1\n", encoding="utf-8")
    YAML().dump({"stages": STAGES}, project.folder / "dvc.yaml")
    (origin / "notes.txt").write_text("of the repository", encoding="utf-8")
    Project(origin, None).run("git", "init", "-q", "-b", "main")
    for key in ("name", "email"):
        project.run("git", "config", f"user.{key}", "test@example.com")
    project.run("dvc", "init", "-q", "--subdir")
    project.run("dvc", "repro", "-q")
    commit(project)
    return origin


@pytest.fixture
def below(made: Path, tmp_path: Path) -> Project:
    """A project in origin/sub ü/project, run once and committed on main."""
    shutil.copytree(made, tmp_path / "origin", symlinks=True)
    return Project(tmp_path / "origin/sub ü/project", shim=None)


def commit(project: Project) -> None:
    project.run("git", "add", "-A", ":/")
    project.run("git", "commit", "-qm", "a commit")


def clone_of(project: Project, name: str) -> Project:
    folder = project.folder.parents[1]
    project.run("git", "clone", "-q", str(folder), str(folder.parent / name))
    return Project(folder.parent / name / "sub ü/project", shim=None)


def test_compare_finds_what_git_and_the_cache_have(below: Project) -> None:
    below.run("git", "tag", "before")
    below.params({"x": 2})
    below.run("dvc", "repro", "-q")
    said = below.run(sys.executable, "-m", "flows.compare", "before", "workspace").stdout
    assert said == "2 results: compare.html\n"
    html = (below.folder / "compare.html").read_text(encoding="utf-8")
    assert re.search(r'<th scope="row">x</th>\s*<td>1</td><td>2</td>', html)
    assert re.search(r'<th scope="row">loss</th>\s*<td[^>]*>(<b>)?0.1000.*\s*<td[^>]*>(<b>)?0.2000', html)
    assert not re.search(r"neither in git nor in the cache:[^.]*(params.yaml|dvc.lock|metrics.json)", html)


def test_a_cached_output_of_a_revision_is_read(below: Project) -> None:
    below.params({"x": 2})
    below.run("dvc", "repro", "-q")
    program = "import flows.pages.result as r; from flows.sharing.clone import project_folder; "
    program += "r.STEPS, r.rows = 'data/one/x', bytes; print(r.read_result('', 'main', project_folder()).steps)"
    assert below.run(sys.executable, "-c", program).stdout == "b'x: 1\\n'\n"


def test_a_clone_goes_to_a_commit_and_its_own_result_comes_along(below: Project) -> None:
    clone = clone_of(below, "clone")
    clone.params({"x": 3})
    clone.run("dvc", "repro", "-q")
    (below.folder.parents[1] / "notes.txt").write_text("changed", encoding="utf-8")
    (below.folder / "new.txt").write_text("new", encoding="utf-8")
    commit(below)
    clone.run(sys.executable, "-c", GO)
    assert (clone.folder / "new.txt").exists()
    assert (clone.folder.parents[1] / "notes.txt").read_text(encoding="utf-8") == "changed"
    assert "x: 3" in (clone.folder / "dvc.lock").read_text(encoding="utf-8")
    assert (clone.folder / "params.yaml").read_text(encoding="utf-8") == "x: 1\n"


@pytest.mark.parametrize("file", ["../../notes.txt", "../../new.txt", "new.txt", "stages/__init__.py"])
def test_what_was_written_by_hand_is_not_thrown_away(below: Project, file: str) -> None:
    clone = clone_of(below, "clone")
    (below.folder / file).write_text("theirs", encoding="utf-8")
    commit(below)
    (clone.folder / file).write_text("mine", encoding="utf-8")
    assert file in clone.run(sys.executable, "-c", GO, check=False).stderr.splitlines()[-1]
    assert (clone.folder / file).read_text(encoding="utf-8") == "mine"


def test_live_curves_of_queued_experiments(below: Project) -> None:
    queued = below.folder / ".dvc/tmp/exps/tmpa1/sub ü/project/.unfreeze/live/augment"
    queued.mkdir(parents=True)
    (queued / "metrics.json").write_text("{}", encoding="utf-8")
    below.run(sys.executable, "-m", "flows.live", "--once")
    html = (below.folder / ".unfreeze/live/index.html").read_text(encoding="utf-8")
    assert "<h2>queued tmpa1: augment</h2>" in html


@pytest.fixture
def worker(below: Project, server: Server) -> Iterator[None]:
    """Of the pool far, in a clone of its own; the remote is a directory."""
    (below.folder / "prefect.yaml").write_text(
        (ROOT / "prefect.yaml").read_text(encoding="utf-8").replace("gpu", "far").replace("main   ", "below  "),
        encoding="utf-8",
    )
    below.run("dvc", "remote", "add", "-q", "-d", "there", str(below.folder.parents[2] / "remote"))
    commit(below)
    for pool in ("cpu", "far"):
        below.run(*server.env("prefect", "work-pool", "create", pool, "--type", "process", "--overwrite"))
    below.run(*server.env("prefect", "--no-prompt", "deploy", "--name", "far"))
    clone = clone_of(below, "worker")
    settings = clone.environment() | server.environment() | {"UNFREEZE_CLONE": str(clone.folder)}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "far", "--name", "below"]
    with (
        (clone.folder / "log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, cwd=clone.folder, env=settings, stdout=log, stderr=log) as process,
    ):
        yield
        process.terminate()


@pytest.mark.slow
def test_a_stage_is_sent_to_a_worker(below: Project, server: Server, worker: None) -> None:
    sender = clone_of(below, "sender")
    said = Flows(sender, server).run("--send", "far", "-S", "x=4", targets=[])
    assert "\n2 executed\n" in said
    assert re.search(r"evaluate\s*│ executed.*:project", said)
    metrics = sender.folder / "data/evaluate/metrics.json"
    assert metrics.read_text(encoding="utf-8") == '{"loss": 0.4}\n'
    program = "from flows.recipe import recipe; print(recipe(revision='main', return_state=True).message)"
    said = sender.run(*server.env(sys.executable, "-c", program)).stdout
    assert said.splitlines()[-1] == "2 executed"
