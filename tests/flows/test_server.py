"""Which server a run finds, and what it says where there is none: one line, within seconds."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.flows.conftest import Server, free_port, wait_until_it_answers

PROGRAM = """
import sys
from flows.errors import PipelineError
from flows.processes.server import find_server, set_default_settings
set_default_settings()
try:
    find_server()
except PipelineError as error:
    sys.exit(" ".join(str(error).split()))
from prefect.client.orchestration import get_client
with get_client(sync_client=True) as client:
    print(client.read_flows(limit=1) is not None)
"""
PROXY = dict.fromkeys(["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"], "http://127.0.0.1:1")
STARTED = "No Prefect server is set: starting a temporary one"


def find(settings: Mapping[str, str], seconds: int = 240) -> tuple[int, list[str]]:
    """Exit code and lines of a program that looks for a server."""
    free = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, cwd=ROOT, env=free | dict(settings), timeout=seconds, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.returncode, [line for line in done.stdout.splitlines() if not line.startswith(STARTED)]


@pytest.mark.parametrize("settings", [{}, PROXY], ids=["slash", "proxy"])
def test_what_prefects_client_reaches_is_reached(server: Server, settings: dict[str, str]) -> None:
    url = {"PREFECT_API_URL": f"{server.api}/", "PREFECT_HOME": str(server.home)}
    assert find(url | settings) == (0, ["True"])


def test_an_address_without_api_is_said(server: Server) -> None:
    url = server.api.removesuffix("/api")
    code, lines = find({"PREFECT_API_URL": url, "PREFECT_HOME": str(server.home)})
    assert (code, len(lines)) == (1, 1)
    assert f"PREFECT_API_URL = {url} (404 Not Found; the address ends in /api)" in lines[0]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a password."""
    port = free_port()
    server = Server(port, tmp_path_factory.mktemp("closed"))
    command = [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)]
    settings = server.environment() | {"PREFECT_SERVER_API_AUTH_STRING": "admin:secret"}
    with (
        (server.home / "server.log").open("w", encoding="utf-8") as log,
        subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log) as process,
    ):
        wait_until_it_answers(server)
        yield server
        process.terminate()


@pytest.mark.slow
def test_a_server_that_requires_a_password(closed: Server) -> None:
    url = {"PREFECT_API_URL": closed.api, "PREFECT_HOME": str(closed.home)}
    code, lines = find(url)
    assert (code, len(lines)) == (1, 1)
    assert "requires a password (401 Unauthorized): set PREFECT_API_AUTH_STRING=user:password as on the" in lines[0]
    assert find(url | {"PREFECT_API_AUTH_STRING": "admin:secret"}) == (0, ["True"])


def newer(home: Path) -> None:
    with sqlite3.connect(home / "prefect.db") as database:
        database.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        database.execute("INSERT INTO alembic_version VALUES ('ffffffffffff')")
    database.close()


def broken(home: Path) -> None:
    (home / "prefect.db").write_text("no database", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (newer, "its database was made by a newer Prefect than this one"),
        pytest.param(broken, "its database is broken", marks=pytest.mark.slow),
    ],
)
def test_a_temporary_server_that_cannot_start(tmp_path: Path, spoil: object, message: str) -> None:
    assert callable(spoil)
    spoil(tmp_path)
    code, lines = find({"PREFECT_HOME": str(tmp_path)})
    assert (code, len(lines)) == (1, 1)
    assert lines[0].startswith(f"the temporary Prefect server does not start: {message} (PREFECT_HOME = {tmp_path})")
    assert "set PREFECT_HOME to another folder" in lines[0]


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, lines = find({"PREFECT_HOME": str(tmp_path / "file/home")})
    assert (code, len(lines)) == (1, 1)
    assert "set PREFECT_HOME to a folder that can be written" in lines[0]


@pytest.mark.slow
def test_a_database_elsewhere_that_is_not_there(tmp_path: Path) -> None:
    database = "postgresql+asyncpg://user:password@127.0.0.1:1/prefect"
    settings = {"PREFECT_HOME": str(tmp_path), "PREFECT_API_DATABASE_CONNECTION_URL": database}
    code, lines = find(settings)
    assert (code, len(lines)) == (1, 1)
    assert "the temporary Prefect server does not start (ConnectionRefusedError" in lines[0]


@pytest.mark.slow
def test_a_proxy_is_not_asked_for_the_temporary_server(tmp_path: Path) -> None:
    assert find(PROXY | {"PREFECT_HOME": str(tmp_path)}) == (0, ["True"])
