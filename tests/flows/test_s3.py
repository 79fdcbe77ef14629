"""A team whose DVC remote is S3: moto's server on loopback stands in for Amazon's. Needs requirements-s3.txt."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from tests.conftest import Project
from tests.flows.conftest import Server, free_port
from tests.flows.team import Team, a_team_makes_what_dvc_repro_makes, assemble

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server with an empty bucket `team`."""
    pytest.importorskip("moto", reason="uv pip install -r requirements-s3.txt")
    url = f"http://127.0.0.1:{free_port()}"
    log = (tmp_path_factory.mktemp("s3") / "log").open("w", encoding="utf-8")
    command = [sys.executable, "-m", "moto.server", "-p", url.rpartition(":")[2]]
    with log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        for _ in range(200):
            try:
                with urlopen(Request(f"{url}/team", method="PUT")):
                    break
            except URLError:
                time.sleep(0.2)
        else:
            pytest.fail(f"moto's server does not answer: {Path(log.name).read_text(encoding='utf-8')[-2000:]}")
        yield url
        process.terminate()


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, server: Server, shim: Path, s3: str) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "a stand-in")
        with assemble(folder, server, shim, "s3://team/unfreeze", {"endpointurl": s3}) as team:
            yield team


def test_the_same_through_s3(team: Team, reproduced: Project) -> None:
    a_team_makes_what_dvc_repro_makes(team, (reproduced.folder / "dvc.lock").read_bytes())
