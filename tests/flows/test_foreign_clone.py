"""A clone that belongs to another user, as a folder mounted into a container does: git refuses to read it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Project, copy_project

GO = "from flows.sharing.clone import check_out\nfrom flows.errors import PipelineError\ntry: check_out('main', [])\n"
GO += "except PipelineError as error: raise SystemExit(str(error))"


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    if os.getuid() != 0:
        pytest.skip("only root can give a folder away")
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    project = Project(tmp_path / "a clone", shim=None)
    copy_project(project.folder)
    (project.folder / "params.yaml").write_text("x: 1\n", encoding="utf-8")
    (project.folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    project.run("git", "init", "-q")
    project.run("dvc", "init", "-q")
    project.run("git", "add", "-A")
    project.run("git", "-c", "user.name=x", "-c", "user.email=x@example.com", "commit", "-qm", "one")
    for folder, _, files in os.walk(project.folder):
        for name in (".", *files):
            os.lchown(Path(folder) / name, 12345, 12345)
    return project


@pytest.mark.parametrize("command", [("-m", "flows.compare"), ("-c", GO)], ids=["compare", "a checkout"])
def test_one_line_with_the_command_that_allows_it(foreign: Project, command: tuple[str, ...]) -> None:
    done = foreign.run(sys.executable, *command, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"git refuses to read {foreign.folder}, which belongs to another user" in done.stderr
    allowing = re.findall(r"`(.*)`", done.stderr)
    assert allowing == [f"git config --global --add safe.directory '{foreign.folder}'"]
    subprocess.run(allowing[0], shell=True, check=True)
    assert foreign.run(sys.executable, "-m", "flows.compare").stdout == "2 results: compare.html\n"
