"""Two workers in two clones, one remote, one server: all real, all started here."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.states import Cancelling

from tests.conftest import ROOT, Project, make_project
from tests.flows.conftest import TARGETS, Server
from tests.flows.test_run import children, locks
from tests.test_cache import ALL

pytestmark = pytest.mark.slow
GPU = ["augment", "lr_find", "precompute", "train_full", "train_head", "tta", "unfreeze"]


@dataclass
class Team:
    """A git origin, a DVC remote, and clones with a worker each."""

    folder: Path
    server: Server
    shim: Path
    workers: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    def clone(self, name: str) -> Project:
        project = Project(self.folder / name, self.shim)
        if not project.folder.exists():
            Project(self.folder, None).run("git", "clone", "-q", "origin.git", name)
        return project

    @property
    def flows_run(self) -> list[str]:
        return self.server.env(sys.executable, "-m", "flows.run")

    def settings(self, project: Project) -> dict[str, str]:
        return project.environment() | self.server.environment() | {"UNFREEZE_CLONE": str(project.folder)}

    def work(self, pool: str) -> None:
        """Start a worker for the pool in the clone of that name."""
        project = self.clone(pool)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", pool]
        log = (self.folder / f"{pool}.log").open("a")
        self.workers[pool] = subprocess.Popen(
            command, cwd=project.folder, env=self.settings(project), stdout=log, stderr=log, text=True
        )
        log.close()

    def stop(self, pool: str, how: signal.Signals = signal.SIGTERM) -> None:
        """The worker and everything below it."""
        worker = self.workers.pop(pool)
        below = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(how)
        if how is signal.SIGKILL:
            for process in below:
                process.kill()
        worker.wait(timeout=60)

    def recipe(self, **parameters: Any) -> FlowRun:
        """Start the deployment recipe/main; it goes to the cpu worker."""
        os.environ.update(self.server.environment())
        parameters = {"stages": list(TARGETS)} | parameters
        run: FlowRun = run_deployment("recipe/main", parameters=parameters, timeout=0)  # type: ignore[assignment]
        return run

    def wait(self, run: FlowRun, seconds: int = 300) -> FlowRun:
        for _ in range(seconds * 2):
            found = self.server.client.read_flow_run(run.id)
            if found.state and found.state.is_final():
                return found
            time.sleep(0.5)
        logs = "".join(path.read_text()[-3000:] for path in self.folder.glob("*.log"))
        pytest.fail(f"{run.name} does not end: {logs}")

    def receipts(self, name: str) -> set[str]:
        return {path.stem for path in (self.folder / name / ".unfreeze/receipts").glob("*.json")}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, server: Server, shim: Path) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    start = make_project(folder / "start", shim)
    (start.folder / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text())
    start.run("dvc", "remote", "add", "-d", "there", str(folder / "remote"))
    start.run("git", "add", "-A")
    start.run("git", "commit", "-qm", "a remote, deployments")
    start.run("git", "branch", "-M", "main")
    start.run("git", "clone", "-q", "--bare", ".", str(folder / "origin.git"))
    team = Team(folder, server, shim)
    for pool in ("cpu", "gpu"):
        start.run(*server.env("prefect", "work-pool", "create", pool, "--type", "process"))
    start.run(*server.env("prefect", "--no-prompt", "deploy", "--all"))
    team.work("cpu")
    team.work("gpu")
    yield team
    for pool in list(team.workers):
        team.stop(pool)


def test_gpu_stages_run_on_the_gpu_worker_and_a_third_clone_restores_all(team: Team, reproduced: Project) -> None:
    run = team.wait(team.recipe())
    assert run.state_name == "Completed", run.state
    assert team.receipts("gpu") == set(GPU)
    assert team.receipts("cpu") == set(ALL) - set(GPU)
    lock = (reproduced.folder / "dvc.lock").read_bytes()  # of plain `dvc repro`
    assert (team.folder / "cpu/dvc.lock").read_bytes() == lock
    assert (team.folder / "cpu/data/unfreeze/curve.png").exists()  # plots and metrics come back, the rest stays away
    assert not (team.folder / "cpu/data/train_full/model.safetensors").exists()

    third = team.clone("third")
    said = third.run(*team.flows_run, "--pull", *TARGETS).stdout
    assert "12 restored" in said
    assert team.receipts("third") == set()
    assert (third.folder / "dvc.lock").read_bytes() == lock
    assert third.repro(*TARGETS) == []


def test_again_nothing_runs(team: Team) -> None:
    run = team.wait(team.recipe())
    assert run.state_name == "Completed", run.state
    states = team.server.states(run)
    assert {states[stage] for stage in ALL} == {"Cached"}


def test_what_another_clone_has_made_is_restored_by_a_worker(team: Team) -> None:
    other = team.clone("third")
    said = other.run(*team.flows_run, "--push", "-S", "tta.n_aug=3", *TARGETS).stdout
    assert "2 executed" in said
    (team.folder / "gpu/.unfreeze/receipts/tta.json").unlink()
    run = team.wait(team.recipe(set_param=["tta.n_aug=3"]))
    assert run.state_name == "Completed", run.state
    assert {team.server.states(run)[stage] for stage in ALL} == {"Cached"}
    assert not (team.folder / "gpu/.unfreeze/receipts/tta.json").exists()


def asleep(team: Team) -> list[psutil.Process]:
    """The stage's process on the gpu worker, once it is there."""
    for _ in range(600):
        if sleeping := children(team.workers["gpu"], "sleep 62"):
            return sleeping
        time.sleep(0.2)
    pytest.fail("the gpu worker does not start the stage: " + (team.folder / "gpu.log").read_text()[-3000:])


def test_a_worker_killed_in_the_middle_loses_nothing(team: Team) -> None:
    yaml = team.folder / "start/dvc.yaml"
    start = Project(team.folder / "start", team.shim)
    command = "cmd: python -m stages.tta"
    yaml.write_text(yaml.read_text().replace(command, f"cmd: test -e go || sleep 62; {command[5:]}"))
    start.run("git", "commit", "-qam", "a slow stage")
    start.run("git", "push", "-q", str(team.folder / "origin.git"), "main")
    run = team.recipe()
    asleep(team)
    team.stop("gpu", signal.SIGKILL)
    started = time.monotonic()
    ended = team.wait(run)
    assert time.monotonic() - started < 90
    assert ended.state_name == "Failed"
    assert "has not been heard of" in str(team.server.tasks(ended)["tta"].state)
    assert team.server.states(ended)["evaluate"] == "NotReady"
    (team.folder / "gpu/go").touch()
    team.work("gpu")
    ended = team.wait(team.recipe())
    assert ended.state_name == "Completed", ended.state
    states = team.server.states(ended)
    assert {stage for stage in ALL if states[stage] == "Completed"} <= {"tta", "evaluate"}
    assert states["tta"] == "Completed"
    Project(team.folder / "gpu", team.shim).run("dvc", "status", "-c")


def test_cancelling_reaches_the_worker(team: Team) -> None:
    (team.folder / "gpu/go").unlink(missing_ok=True)
    before = {pool: locks(team.clone(pool)) for pool in ("cpu", "gpu")}  # a killed reader's stay until somebody writes
    run = team.recipe(set_param=["tta.n_aug=5"])
    sleeping = asleep(team)
    started = time.monotonic()
    team.server.client.set_flow_run_state(run.id, Cancelling())
    psutil.wait_procs(sleeping, timeout=30)
    assert time.monotonic() - started < 10
    assert team.wait(run).state_name == "Cancelled"
    for pool in ("cpu", "gpu"):
        for _ in range(60):
            if locks(team.clone(pool)) == before[pool]:
                break
            time.sleep(0.5)
        assert locks(team.clone(pool)) == before[pool]


def test_uncommitted_code_is_refused(team: Team) -> None:
    third = team.clone("third")
    (third.folder / "stages/tta.py").write_text("# changed\n")
    done = third.run(*team.flows_run, "--send", "gpu", *TARGETS, check=False)
    assert done.returncode == 1
    assert "not committed: stages/tta.py" in done.stdout
