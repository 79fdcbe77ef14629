"""A team: a git origin, a DVC remote, one Prefect server, and clones with a worker each. All real."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, make_project
from tests.flows.conftest import TARGETS, Server
from tests.test_cache import ALL

GPU = ["augment", "lr_find", "precompute", "train_full", "train_head", "tta", "unfreeze"]


@dataclass
class Team:
    """A git origin, a DVC remote, and clones with a worker each."""

    folder: Path
    server: Server
    shim: Path | None
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

    def work(self, pool: str, name: str = "") -> None:
        """Start a worker for the pool in the clone of that name; without one, in the clone of the pool's name."""
        name = name or pool
        project = self.clone(name)
        command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--name", name]
        command += ["--limit", "1"] if pool == "gpu" else []  # as docs/prefect.md says: one worker for each GPU
        log = (self.folder / f"{name}.log").open("a", encoding="utf-8")
        self.workers[name] = subprocess.Popen(
            command, cwd=project.folder, env=self.settings(project), stdout=log, stderr=log, encoding="utf-8"
        )
        log.close()

    def stop(self, pool: str, how: signal.Signals = signal.SIGTERM) -> None:
        """The worker; with SIGKILL also the process of its flow run, but not those of the stage below that."""
        worker = self.workers.pop(pool)
        below = psutil.Process(worker.pid).children(recursive=True)
        worker.send_signal(how)
        if how is signal.SIGKILL:
            stages = {one.pid for one in below if "flows.processes.child" in one.cmdline()}
            for process in (one for one in below if os.getsid(one.pid) not in stages):
                process.kill()
        worker.wait(timeout=60)

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        os.environ.update(self.server.environment())
        run: FlowRun = run_deployment(deployment, parameters=parameters, timeout=0)  # type: ignore[assignment]
        return run

    def recipe(self, **parameters: Any) -> FlowRun:
        """recipe/main, which goes to the cpu worker."""
        return self.start("recipe/main", **{"stages": list(TARGETS)} | parameters)

    def wait(self, run: FlowRun, seconds: int = 900) -> FlowRun:
        for _ in range(seconds * 2):
            found = self.server.client.read_flow_run(run.id)
            if found.state and found.state.is_final():
                return found
            time.sleep(0.5)
        logs = "".join(path.read_text(encoding="utf-8")[-3000:] for path in self.folder.glob("*.log"))
        pytest.fail(f"{run.name} does not end: {logs}")

    def states(self, run: FlowRun) -> dict[str, str]:
        """Of the stages of a run that is over. The server learns of tasks by events, a moment after the run's end."""
        for _ in range(100):
            found = self.server.states(run)
            if set(ALL) <= set(found) and not {"Pending", "Running"} & set(found.values()):
                break
            time.sleep(0.1)
        return {stage: found[stage] for stage in ALL}

    def receipts(self, name: str) -> set[str]:
        return {path.stem for path in (self.folder / name / ".unfreeze/receipts").glob("*.json")}


@contextmanager
def assemble(
    folder: Path,
    server: Server,
    shim: Path | None,
    remote: str,
    settings: Mapping[str, str] | None = None,
    project: Project | None = None,
) -> Iterator[Team]:
    """Origin, remote (`settings` as in `dvc remote modify`), pools, deployments, a worker in a clone for each pool.

    `project`: what origin is made of; by default the recipe's own, made small.
    """
    start = project or make_project(folder / "start", shim)
    (start.folder / "prefect.yaml").write_text((ROOT / "prefect.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    start.run("dvc", "remote", "add", "-d", "there", remote)
    for key, value in (settings or {}).items():
        start.run("dvc", "remote", "modify", "there", key, value)
    start.run("git", "add", "-A")
    start.run("git", "commit", "-qm", "a remote, deployments")
    start.run("git", "branch", "-M", "main")
    start.run("git", "clone", "-q", "--bare", ".", str(folder / "origin.git"))
    start.run("git", "remote", "add", "origin", str(folder / "origin.git"))
    team = Team(folder, server, shim)
    for pool in ("cpu", "gpu"):
        start.run(*server.env("prefect", "work-pool", "create", pool, "--type", "process", "--overwrite"))
    start.run(*server.env("prefect", "--no-prompt", "deploy", "--all"))
    for pool in ("cpu", "gpu"):
        team.work(pool)
    try:
        yield team
    finally:
        for pool in list(team.workers):
            team.stop(pool)


def a_team_makes_what_dvc_repro_makes(team: Team, lock: bytes) -> None:
    """From nothing, each stage on its pool; then a further clone restores all of it. `lock`: of plain `dvc repro`."""
    run = team.wait(team.recipe())
    assert run.state_name == "Completed", run.state
    assert team.receipts("gpu") == set(GPU)
    assert team.receipts("cpu") == set(ALL) - set(GPU)
    made, yaml = (team.folder / "cpu/dvc.lock").read_bytes(), YAML(typ="safe")
    assert yaml.load(made) == yaml.load(lock)  # plain `dvc repro` takes another order each time: see flows/pipeline
    assert (team.folder / "cpu/data/unfreeze/curve.png").exists()  # plots and metrics come back, the rest stays away
    assert not (team.folder / "cpu/data/train_full/model.safetensors").exists()

    third = team.clone("third")
    said = third.run(*team.flows_run, "--pull", *TARGETS).stdout
    assert "12 restored" in said
    assert team.receipts("third") == set()
    assert (third.folder / "dvc.lock").read_bytes() == made
    assert third.repro(*TARGETS) == []


def kept_promises(remote: Path) -> int:
    """Every output that the remote's run-cache promises lies there whole; how many there are."""
    objects = remote / "files/md5"
    wanted = set[str]()
    for entry in (path for path in remote.glob("runs/*/*/*") if path.is_file()):
        wanted |= {out["md5"] for out in YAML(typ="safe").load(entry.read_text(encoding="utf-8"))["outs"]}
    for folder in [name for name in wanted if name.endswith(".dir")]:
        wanted |= {file["md5"] for file in json.loads((objects / folder[:2] / folder[2:]).read_text(encoding="utf-8"))}
    for name in wanted:
        found = hashlib.md5((objects / name[:2] / name[2:]).read_bytes()).hexdigest()
        assert found == name.removesuffix(".dir")
    return len(wanted)
