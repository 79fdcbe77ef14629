"""`make setup`: what it needs is said before anything is downloaded, and an environment that does not fit is made anew.

Pythons of other versions, pip and uv are mocks: scripts that say that they are of a version and note how they were
called. Nothing is installed.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

MOCK = """#!/bin/sh
echo "$0 $*" >> "{calls}"
case "$1 $2" in
    "-m venv") mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; printf '#!/bin/sh\\n' > "$3/bin/uv"; chmod +x "$3/bin/uv" ;;
    "-m pip" | "pip sync") ;;
    *) exec "{python}" -c 'import sys; sys.version_info = {version}; exec(sys.argv[1])' "$2" ;;
esac
"""


class Folder:
    """The Makefile in a folder of its own."""

    def __init__(self, path: Path) -> None:
        self.path, self.calls = path, path / "calls"
        path.mkdir()
        shutil.copyfile(ROOT / "Makefile", path / "Makefile")
        (path / "requirements.txt").touch()

    def mock(self, place: str, version: tuple[int, int, int]) -> str:
        path = self.path / place if place.startswith(".venv") else self.path.parent / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(MOCK.format(calls=self.calls, python=sys.executable, version=version), encoding="utf-8")
        path.chmod(0o755)
        return str(path)

    def make(self, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
        self.calls.write_text("", encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "PYTHON"))}
        environment["GIT_CEILING_DIRECTORIES"] = str(self.path.parent)
        environment["PATH"] = f"{path}{environment['PATH']}"
        command = ["make", "--no-print-directory", *(arguments or ["setup"])]
        return subprocess.run(command, cwd=self.path, env=environment, capture_output=True, encoding="utf-8")

    def version(self) -> str:
        command = [f"{self.path}/.venv/bin/python", "-c", "import sys; print(sys.version_info)"]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=True).stdout.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """In a git repository."""
    made = Folder(tmp_path / "clone of mine")
    subprocess.run(["git", "init", "-q"], cwd=made.path, check=True)
    return made


def test_an_old_python_is_said_before_anything_is_made(folder: Folder) -> None:
    old = folder.mock("mock/python3.10", (3, 10, 13))
    done = folder.make("setup", f"PYTHON={old}")
    assert done.returncode != 0
    first, *rest = done.stderr.splitlines()
    assert first == "make: this Python is 3.10.13, 3.11 or newer is needed: make setup PYTHON=python3.13"
    assert len(rest) == 1  # make's own
    assert not (folder.path / ".venv").exists()
    assert "-m" not in folder.calls.read_text(encoding="utf-8")


def test_the_environment_of_an_old_python_is_made_anew(folder: Folder) -> None:
    folder.mock(".venv/bin/python", (3, 10, 13))
    (folder.path / ".venv/left").touch()
    new = folder.mock("mock/python3.13", (3, 13, 0))
    assert folder.make("setup", f"PYTHON={new}").returncode == 0
    assert folder.version() == "(3, 13, 0)"
    assert not (folder.path / ".venv/left").exists()
    assert (folder.path / ".venv/ready").exists()


def test_that_of_a_python_that_is_gone_too_although_it_was_ready(folder: Folder) -> None:
    (folder.path / ".venv/bin").mkdir(parents=True)
    (folder.path / ".venv/bin/python").symlink_to("/gone/python3.12")
    (folder.path / ".venv/ready").touch()
    new = folder.mock("mock/python3.13", (3, 13, 0))
    assert folder.make("setup", f"PYTHON={new}").returncode == 0
    assert folder.version() == "(3, 13, 0)"


def test_one_that_is_activated_does_not_make_itself(folder: Folder) -> None:
    for name in ("python", "python3"):
        folder.mock(f".venv/bin/{name}", (3, 10, 13))
    folder.mock("mock/python3", (3, 13, 0))
    assert folder.make("setup", path=f"{folder.path}/.venv/bin:{folder.path.parent}/mock:").returncode == 0
    assert folder.version() == "(3, 13, 0)"


def test_one_that_fits_stays_whatever_python_there_is_now(folder: Folder) -> None:
    folder.mock(".venv/bin/python", (3, 11, 0))
    folder.mock(".venv/bin/uv", (3, 11, 0))
    (folder.path / ".venv/left").touch()
    old = folder.mock("mock/python3.10", (3, 10, 13))
    assert folder.make("setup", f"PYTHON={old}").returncode == 0
    assert folder.version() == "(3, 11, 0)"
    assert (folder.path / ".venv/left").exists()
    assert "uv pip sync" in folder.calls.read_text(encoding="utf-8")
    assert folder.make("setup", f"PYTHON={old}").returncode == 0
    assert "uv pip sync" not in folder.calls.read_text(encoding="utf-8")


@pytest.mark.parametrize("goal", ["setup", "demo", "test"])
def test_a_folder_without_git_is_said_at_once(tmp_path: Path, goal: str) -> None:
    folder = Folder(tmp_path / "from a zip")
    new = folder.mock("mock/python3.13", (3, 13, 0))
    done = folder.make(goal, f"PYTHON={new}")
    assert done.returncode != 0
    assert "DVC needs a git repository that git can read: in a folder from a zip, git init\n" in done.stderr
    assert not (folder.path / ".venv").exists()
    assert "-m" not in folder.calls.read_text(encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=folder.path, check=True)
    assert folder.make("setup", f"PYTHON={new}").returncode == 0
