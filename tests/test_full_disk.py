"""A full disk, a folder that may not be written, a limit: a clear line, and the next run is right."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Project, mounted
from tests.test_killed import REPRO, fresh


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", size_mib=256)


def run(project: Project) -> subprocess.CompletedProcess[str]:
    return project.run(*REPRO, check=False)


def leave(disk: Path, n_bytes: int) -> Path:
    """A file that takes all of the room but that."""
    ballast = disk / "ballast"
    with ballast.open("wb") as file:
        file.write(bytes(shutil.disk_usage(disk).free - n_bytes))
    return ballast


@pytest.mark.slow
def test_full_at_ten_points(reproduced: Project, disk: Path) -> None:
    before = shutil.disk_usage(disk).used
    whole = fresh(reproduced, disk / "whole")
    start = shutil.disk_usage(disk).used - before
    run(whole)
    needed = shutil.disk_usage(disk).used - before - start
    shutil.rmtree(disk / "whole")
    for number in range(10):
        project = fresh(reproduced, disk / "project")
        ballast = leave(disk, int(needed * (number + 0.5) / 10))
        failed = run(project)
        print(number, failed.returncode, failed.stderr.strip().splitlines()[-3:])
        assert failed.returncode == 255, failed.stderr
        assert "No space left on device" in failed.stderr
        assert "Traceback" not in failed.stderr
        ballast.unlink()
        project.repro(*REPRO[2:])
        assert project.md5s() == reproduced.md5s()
        shutil.rmtree(disk / "project")


@pytest.mark.parametrize("stage", ["resize", "train_head", "unfreeze", "tta"])
def test_a_full_disk_is_one_line_and_harms_nothing(project: Project, disk: Path, stage: str) -> None:
    moved = disk / "project"
    shutil.copytree(project.folder, moved, symlinks=True)
    here = Project(moved, project.shim)
    before = {path: path.read_bytes() for path in (moved / "data").rglob("*") if path.is_file()}
    shutil.rmtree(moved / ".unfreeze/items")
    leave(disk, 4096)
    done = here.run("python", "-m", f"stages.{stage}", check=False)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith(f"{stage}: ")
    assert "No space left on device" in line
    assert {path: path.read_bytes() for path in (moved / "data").rglob("*") if path.is_file()} == before


def test_a_folder_that_may_not_be_written_is_one_line(project: Project, disk: Path) -> None:
    shutil.copytree(project.folder, disk / "project", symlinks=True)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    done = Project(disk / "project", project.shim).run("python", "-m", "stages.train_head", check=False)
    assert done.returncode == 1
    *before, line = done.stderr.strip().splitlines()
    assert "Read-only file system: run it where you may write" in line
    assert all(one.startswith("no live curves: ") for one in before)


def test_a_limit_of_the_size_of_files_is_one_line(project: Project) -> None:
    project.shim = None
    shutil.rmtree(project.folder / ".unfreeze")
    done = project.run("bash", "-c", "ulimit -f 40; python -m stages.resize", check=False)
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "File too large" in line
