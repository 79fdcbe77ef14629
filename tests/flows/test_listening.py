"""Whatever listens here does so on loopback alone."""

import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import psutil
import pytest

from tests.flows.conftest import Server

TEMPORARY = """
import psutil
from flows.processes.server import set_default_settings, start_temporary
set_default_settings()
start_temporary()
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for one in process.net_connections():
        if one.status == psutil.CONN_LISTEN:
            print(one.laddr.ip)
"""


def test_the_temporary_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    said = subprocess.run([sys.executable, "-c", TEMPORARY], capture_output=True, encoding="utf-8", check=True).stdout
    addresses = said.split()
    assert addresses
    assert all(ip_address(one).is_loopback for one in addresses), addresses


def test_prefects_own_by_default(server: Server) -> None:
    """`prefect server start`, as README has it."""
    port = int(server.api.split(":")[2].partition("/")[0])
    found = [one.laddr.ip for one in psutil.net_connections() if one.status == "LISTEN" and one.laddr.port == port]
    assert found
    assert all(ip_address(one).is_loopback for one in found), found
