"""What travels between clones: retried where the network fails, and never half there."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.sharing.transfer_task import transfer
from tests.conftest import ROOT, Project, start
from tests.flows.conftest import Flows
from tests.flows.team import kept_promises


@pytest.mark.slow
def test_a_push_is_tried_again_and_the_stage_is_not(flows: Flows, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    remote.touch()  # a file where a folder should be: what a share that is not mounted looks like
    flows.project.run("dvc", "remote", "add", "-d", "there", str(remote))
    with subprocess.Popen(
        flows.command("--push", "--force", targets=["ingest"]), cwd=flows.project.folder,
        env=flows.project.environment(), encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        seen = ""
        for line in process.stdout:
            seen += line
            if "Retry 2/3 will start" in line:
                remote.unlink()
    assert process.returncode == 0, seen
    tasks = flows.server.tasks(flows.server.last_run())
    assert tasks["push ingest"].run_count == 3
    assert tasks["ingest"].run_count == 1
    assert transfer.retry_delay_seconds == [2, 4, 8]
    waits = [float(line.split("will start ")[1].split(" ")[0]) for line in seen.splitlines() if "will start " in line]
    assert len(waits) == 2
    assert waits[0] > 0.8  # give or take half, so that not all come back at once
    made = {md5 for path, md5 in flows.project.md5s().items() if path.startswith("data/ingest/")}
    assert kept_promises(remote) == len(made)


@pytest.mark.slow
def test_a_remote_that_stays_away_fails_the_stage_with_its_reason(flows: Flows, tmp_path: Path) -> None:
    (tmp_path / "remote").touch()
    flows.project.run("dvc", "remote", "add", "-d", "there", str(tmp_path / "remote"))
    before = flows.project.md5s()
    said = flows.run("--push", "--force", code=1, targets=["ingest"])
    assert flows.server.tasks(flows.server.last_run())["push ingest"].run_count == 4
    assert "push ingest: " in flows.server.message("ingest")
    assert "Not a directory" in said
    assert flows.project.md5s() == before  # what was computed stays


def test_no_remote_is_said_before_anything_runs(flows: Flows) -> None:
    assert "`dvc remote add -d NAME URL`" in flows.run("--push", "-S", "tta.n_aug=3", code=1)
    assert flows.server.states() == {}
    assert "n_aug: 2" in (flows.project.folder / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def other(flows: Flows, tmp_path: Path) -> Flows:
    """A clone of the project as committed, dvc.lock among it; both know an empty remote."""
    project = flows.project
    project.run("dvc", "remote", "add", "-d", "there", str(tmp_path / "remote"))
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "all is up to date")
    project.run("git", "clone", "-q", ".", str(tmp_path / "other"))
    return Flows(Project(tmp_path / "other", project.shim), flows.server)


@pytest.mark.slow
def test_what_lies_nowhere_is_named(flows: Flows, other: Flows) -> None:
    ensure_pushed = (sys.executable, "-m", "flows.sharing.remote", "ensure-pushed", "ingest", "split", "lr_find")
    said = other.project.run(*ensure_pushed).stdout
    assert [line for line in said.splitlines() if "LOST" in line] == ["LOST ingest", "LOST split", "LOST lr_find"]
    flows.run("--push")
    assert "LOST" not in other.project.run(*ensure_pushed).stdout


@pytest.mark.slow
def test_what_is_up_to_date_is_pushed_and_pull_brings_it(flows: Flows, other: Flows, tmp_path: Path) -> None:
    assert "12 unchanged" in flows.run("--push")
    assert kept_promises(tmp_path / "remote") > 12
    assert "12 restored" in other.run("--pull")
    assert (other.project.folder / "data/evaluate/confusion.png").exists()
    assert other.project.repro("evaluate", "lr_find") == []


@pytest.mark.slow
def test_what_the_remote_has_not_is_made_here(flows: Flows, other: Flows, tmp_path: Path) -> None:
    assert "2 executed" in other.run("--pull", targets=["split"])
    flows.run("--push", targets=["split"])
    md5 = flows.project.md5s()["data/ingest/images.parquet"]
    (tmp_path / "remote/files/md5" / md5[:2] / md5[2:]).unlink()
    project = Project(tmp_path / "third", flows.project.shim)
    flows.project.run("git", "clone", "-q", ".", str(project.folder))
    assert "1 executed, 1 restored" in Flows(project, flows.server).run("--pull", targets=["split"])
    assert project.md5s() == flows.project.md5s()


@pytest.mark.slow
def test_one_cache_directory_instead_of_a_remote(flows: Flows, other: Flows, tmp_path: Path) -> None:
    for project in (flows.project, other.project):
        project.run("dvc", "remote", "remove", "there")
        project.run("dvc", "cache", "dir", str(tmp_path / "cache"))
    flows.run("--force", "--push", targets=["split"])
    assert "2 restored" in other.run("--pull", targets=["split"])
    assert (other.project.folder / "data/split/train.csv").exists()


@pytest.mark.slow
def test_a_push_that_is_killed_promises_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "source").write_text("x", encoding="utf-8")
    (folder / "make.py").write_text(
        "from pathlib import Path\nfor n in range(20): p = Path(f'out/{n}'); p.parent.mkdir(exist_ok=True);"
        " p.write_bytes(bytes([n]) * 20_000_000)\n",
        encoding="utf-8",
    )
    stage = "stages: {make: {cmd: python make.py, deps: [source, make.py], outs: [out]}}"
    (folder / "dvc.yaml").write_text(stage, encoding="utf-8")
    project = start(Project(folder, None))
    project.run("dvc", "remote", "add", "-d", "there", str(tmp_path / "remote"))
    project.run("dvc", "repro")
    environment = project.environment() | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.sharing.remote", "push", "make"]
    amounts = []
    for tenths in range(3, 30):
        process = subprocess.Popen(command, cwd=folder, env=environment)
        time.sleep(tenths / 10)
        process.kill()
        process.wait()
        promised = kept_promises(tmp_path / "remote")
        amounts.append(len(list((tmp_path / "remote").rglob("*"))))
        if promised:
            break
    assert len({*amounts}) > 2, f"the kills did not fall into the push: {amounts}"
    subprocess.run(command, cwd=folder, env=environment, check=True)
    assert kept_promises(tmp_path / "remote") == 21
