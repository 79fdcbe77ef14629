"""New pictures start the recipe: once for a content, and not before the folder has come to rest."""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.schedules import IntervalSchedule

from tests.conftest import Project, draw_picture
from tests.flows.conftest import Server

PROGRAM = """
import json, sys
from flows import new_data
asked = []
def started(name, **arguments):
    asked.append(arguments["idempotency_key"])
    return type("Run", (), {"name": "a-run"})
new_data.run_deployment = started  # a stand-in: no deployment is here
states = [new_data.new_data(quiet_seconds=float(sys.argv[1]), return_state=True) for _ in range(2)]
print(json.dumps([[state.name for state in states], asked]))
"""


def poll(project: Project, server: Server, quiet_seconds: float = 0) -> tuple[list[str], list[str]]:
    """Two polls: their states, and the keys of the runs they asked for."""
    said = project.run(*server.env(sys.executable, "-c", PROGRAM, str(quiet_seconds))).stdout
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


@pytest.mark.slow
def test_a_folder_that_is_being_filled_is_left_alone(named: Project, server: Server, tmp_path: Path) -> None:
    filled = threading.Event()

    def fill() -> None:
        while not filled.wait(0.2):
            (tmp_path / "new/train/red03.jpg").touch()

    with ThreadPoolExecutor() as pool:
        pool.submit(fill)
        assert poll(named, server, quiet_seconds=2) == (["Waiting", "Waiting"], [])
        filled.set()
    states, asked = poll(named, server, quiet_seconds=2)  # at rest, but not for long: waited for
    assert states == ["Completed", "Unchanged"]
    assert len(asked) == 1


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
