"""New pictures start the recipe: once for a content, and not before the folder has come to rest."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import IntervalSchedule
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, copy_project, draw_picture, start
from tests.flows.conftest import Server

PROGRAM = """
import json, sys
from flows import new_data
asked = []
def started(name, **arguments):
    asked.append(arguments["idempotency_key"])
    return type("Run", (), {"name": "a-run"})
new_data.run_deployment = started  # a stand-in: no deployment is here
waits = {"quiet_seconds": float(sys.argv[1]), "most_seconds": float(sys.argv[2])}
states = [new_data.new_data(**waits, return_state=True) for _ in range(2)]
print(json.dumps([[state.name for state in states], asked]))
"""


def poll(
    project: Project, server: Server, quiet_seconds: float = 0, most_seconds: float = 60
) -> tuple[list[str], list[str]]:
    """Two polls: their states, and the keys of the runs they asked for."""
    waits = (str(quiet_seconds), str(most_seconds))
    said = project.run(*server.env(sys.executable, "-c", PROGRAM, *waits)).stdout
    states, asked = json.loads(said.splitlines()[-1])
    return states, asked


@pytest.fixture
def named(project: Project, tmp_path: Path) -> Project:
    """Pictures in a folder that no other test on this server has."""
    (project.folder / "pictures").rename(tmp_path / "new")
    project.params({"ingest.path": str(tmp_path / "new")})
    return project


def test_each_content_starts_one_run(named: Project, server: Server, tmp_path: Path) -> None:
    states, first = poll(named, server)
    assert states == ["Completed", "Unchanged"]
    assert len(first) == 1
    picture = tmp_path / "new/train/red03.jpg"
    os.utime(picture)
    assert poll(named, server) == (["Unchanged", "Unchanged"], [])  # touched, the bytes are the same
    old = picture.read_bytes()
    draw_picture(picture, "red", 999)
    states, second = poll(named, server)
    assert states == ["Completed", "Unchanged"]
    picture.write_bytes(old)
    states, third = poll(named, server)  # back to the first content: a change as well
    assert states == ["Completed", "Unchanged"]
    assert len({*first, *second, *third}) == 3


def test_a_folder_that_is_being_filled_is_waited_for(named: Project, server: Server, tmp_path: Path) -> None:
    """Each file comes while a poll waits for rest: the run is started once, after the last one."""

    def fill() -> str:
        for number in range(100, 130):
            draw_picture(tmp_path / f"new/train/red{number}.jpg", "red", number)
            time.sleep(0.5)
        return content(named)

    with ThreadPoolExecutor() as pool:
        filling = pool.submit(fill)
        states, asked = poll(named, server, quiet_seconds=2)
        whole = filling.result()
    assert states == ["Completed", "Unchanged"]
    assert [key.split("-")[-1] for key in asked] == [whole]


def content(project: Project) -> str:
    """DVC's hash of the pictures."""
    program = "from flows.pipeline.data_folder import content_hash; print(content_hash('ingest'))"
    return project.run(sys.executable, "-c", program).stdout.strip()


@pytest.mark.slow
def test_a_folder_that_is_never_at_rest(named: Project, server: Server, tmp_path: Path) -> None:
    filled = threading.Event()

    def fill() -> None:
        while not filled.wait(0.1):
            (tmp_path / "new/train/red03.jpg").touch()

    with ThreadPoolExecutor() as pool:
        pool.submit(fill)
        assert poll(named, server, quiet_seconds=1, most_seconds=2) == (["Failed", "Failed"], [])
        filled.set()
    states, asked = poll(named, server, quiet_seconds=1)
    assert states == ["Completed", "Unchanged"]
    assert len(asked) == 1


def test_times_that_lie_ahead_delay_nothing(named: Project, server: Server, tmp_path: Path) -> None:
    """As unzip leaves them in another time zone: of a folder, and of a file."""
    ahead = time.time() + 5 * 3600
    for path in (tmp_path / "new/train/red03.jpg", tmp_path / "new/train"):
        os.utime(path, (ahead, ahead))
    states, asked = poll(named, server, quiet_seconds=1)
    assert states == ["Completed", "Unchanged"]
    assert len(asked) == 1


def test_a_deployment_that_is_not_there(named: Project, server: Server) -> None:
    program = (
        "from flows.new_data import new_data as poll\n"
        "state = poll(deployment='recipe/none', quiet_seconds=0, return_state=True)\nprint(state.name, state.message)"
    )
    said = named.run(*server.env(sys.executable, "-c", program)).stdout
    assert said.splitlines()[-1] == "Failed no deployment recipe/none: run `prefect deploy --all`"


@pytest.fixture
def watched(tmp_path: Path, server: Server) -> Iterator[Path]:
    """A folder watched by new-data/poll on a worker; what it starts is recipe/main on the same one."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new/1").write_text("1", encoding="utf-8")
    (tmp_path / "project").mkdir()
    copy_project(tmp_path / "project")
    ingest = {"cmd": f"ls {tmp_path / 'new'} > names", "deps": [str(tmp_path / "new")], "outs": ["names"]}
    YAML().dump({"stages": {"ingest": ingest}}, tmp_path / "project/dvc.yaml")
    (tmp_path / "project/prefect.yaml").write_text((ROOT / "prefect.yaml").read_text("utf-8"), encoding="utf-8")
    project = start(Project(tmp_path / "project", shim=None))
    project.run("git", "branch", "-M", "main")
    project.run("git", "remote", "add", "origin", ".")
    pool = ("prefect", "work-pool", "create", "watching", "--type", "process", "--overwrite")
    project.run(*server.env(*pool))
    for name in ("main", "poll"):
        project.run(*server.env("prefect", "--no-prompt", "deploy", "--name", name, "--pool", "watching"))
    for name, parameters in (("recipe/main", {"revision": "main"}), ("new-data/poll", {"quiet_seconds": 15})):
        found = server.client.read_deployment_by_name(name)
        server.client.update_deployment(found.id, DeploymentUpdate(parameters=parameters))
    settings = project.environment() | server.environment() | {"UNFREEZE_CLONE": str(project.folder)}
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "watching"]
    with (
        (tmp_path / "log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, cwd=project.folder, env=settings, stdout=log, stderr=log) as process,
    ):
        yield tmp_path
        process.terminate()


@pytest.mark.slow
def test_events_alone(watched: Path, server: Server) -> None:
    """One that comes during a poll leads to another look; many of them to one."""
    project = Project(watched / "project", shim=None)
    event = server.env("prefect", "event", "emit", "unfreeze.data-changed", "--resource-id", "unfreeze.data")
    project.run(*event)
    first = wait_for(lambda: [run for run in polls(server) if run.state_name == "Running"])[0]
    for number in ("2", "3"):
        (watched / "new" / number).write_text(number, encoding="utf-8")
        project.run(*event)
    names = project.folder / "names"
    wait_for(lambda: names.exists() and names.read_text(encoding="utf-8") == "1\n2\n3\n")
    done = wait_for(lambda: len(found := polls(server)) == 3 and all(run.state.is_final() for run in found) and found)
    states = {run.id: (run.state_name, run.state.message) for run in done}
    assert states.pop(first.id)[1].startswith("started recipe/main")
    joined = ("Cancelled", f"{first.name} checks the folder after this request")
    assert set(states.values()) <= {joined, ("Unchanged", f"{watched / 'new'} is as it was")}


def polls(server: Server) -> Any:
    found = server.client.read_deployment_by_name("new-data/poll")
    return server.client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id])))


def wait_for(condition: Callable[[], Any], seconds: int = 180) -> Any:
    for _ in range(seconds * 2):
        if found := condition():
            return found
        time.sleep(0.5)
    pytest.fail("it did not come")


def test_a_folder_that_is_not_there(named: Project, server: Server) -> None:
    named.params({"ingest.path": "nowhere"})
    assert poll(named, server) == (["Failed", "Failed"], [])


def test_a_schedule_makes_runs(server: Server) -> None:
    """Prefect's own work; but with SQLAlchemy 2.1 its scheduler failed at every turn, and nobody was told."""
    schedule = DeploymentScheduleCreate(schedule=IntervalSchedule(interval=timedelta(minutes=1)), active=True)
    flow_id = server.client.create_flow_from_name("scheduled")
    deployment = server.client.create_deployment(flow_id, "every-minute", schedules=[schedule])
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[deployment]))
    for _ in range(100):
        if found := server.client.read_flow_runs(deployment_filter=wanted):
            break
        time.sleep(0.2)
    assert {run.state_name for run in found} == {"Scheduled"}
    server.client.delete_deployment(deployment)
