"""A real Prefect server on a free port of loopback, with a home of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, TaskRun
from prefect.client.schemas.sorting import FlowRunSort

from tests.conftest import Project

TARGETS = ("evaluate", "lr_find")


class Server:
    """`api` is its address; `client` asks it."""

    def __init__(self, port: int, home: Path) -> None:
        self.api = f"http://127.0.0.1:{port}/api"
        self.home = home
        self.client: SyncPrefectClient

    def environment(self) -> dict[str, str]:
        return {
            "PREFECT_API_URL": self.api,
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        }

    def env(self, *command: str) -> list[str]:
        """The command with this server's settings."""
        return ["env", *(f"{key}={value}" for key, value in self.environment().items()), *command]

    def last_run(self, flow: str = "recipe") -> FlowRun:
        wanted = FlowFilter(name=FlowFilterName(any_=[flow]))
        (run,) = self.client.read_flow_runs(flow_filter=wanted, sort=FlowRunSort.START_TIME_DESC, limit=1)
        return run

    def tasks(self, run: FlowRun) -> dict[str, TaskRun]:
        wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        return {task.name: task for task in self.client.read_task_runs(flow_run_filter=wanted)}

    def states(self, run: FlowRun | None = None) -> dict[str, str]:
        """Task run: name of its state."""
        return {name: task.state_name or "" for name, task in self.tasks(run or self.last_run()).items()}

    def message(self, stage: str) -> str:
        """Of the stage's state in the last run."""
        state = self.tasks(self.last_run())[stage].state
        return str(state.message) if state else ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    port = free_port()
    server = Server(port, tmp_path_factory.mktemp("prefect"))
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    with (
        (server.home / "server.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, env=os.environ | server.environment(), stdout=log, stderr=log) as process,
    ):
        wait_until_it_answers(server)
        with SyncPrefectClient(server.api) as client:
            server.client = client
            yield server
        process.terminate()


def wait_until_it_answers(server: Server) -> None:
    for _ in range(600):
        try:
            with urlopen(f"{server.api}/health", timeout=1):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    pytest.fail(f"no server: {(server.home / 'server.log').read_text(encoding='utf-8')[-2000:]}")


@dataclass
class Flows:
    """`python -m flows.run` in a project, and what the server then knows of it."""

    project: Project
    server: Server

    def command(self, *arguments: str, targets: Sequence[str] = TARGETS) -> list[str]:
        return self.server.env(sys.executable, "-m", "flows.run", *arguments, *targets)

    def run(self, *arguments: str, code: int = 0, targets: Sequence[str] = TARGETS) -> str:
        """What it printed; `code` is the exit code that it must have."""
        done = self.project.run(*self.command(*arguments, targets=targets), check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def did(self, state: str) -> list[str]:
        """Stages of the last run in this state, by name."""
        return sorted(name for name, found in self.server.states().items() if found == state)


@pytest.fixture
def flows(project: Project, server: Server) -> Flows:
    return Flows(project, server)
