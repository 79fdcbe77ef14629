"""The whole pipeline killed, stopped or started twice at random moments: run again, and every byte is right."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.conftest import Project

WAIT = re.compile(r"is busy|Unable to acquire lock")
REPRO = ("dvc", "repro", "evaluate", "lr_find")


def fresh(reproduced: Project, folder: Path) -> Project:
    """A clone, where nothing has run."""
    reproduced.run("git", "clone", "-q", ".", str(folder))
    project = Project(folder, reproduced.shim)
    project.params({"checkpoint_seconds": 0.1})
    return project


def start(project: Project) -> subprocess.Popen[str]:
    return subprocess.Popen(
        REPRO, cwd=project.folder, env=project.environment(), encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def wait_for_all(session: int) -> None:
    """Until nothing of it is left: a stage that was told to stop takes a moment."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        alive = [one for one in psutil.process_iter() if one.pid != session and session_of(one) == session]
        if not alive:
            return
        time.sleep(0.02)
    pytest.fail(f"still there: {alive}")


def session_of(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1


def disturb_until_done(project: Project, rng: np.random.Generator, number: signal.Signals, mean_seconds: float) -> int:
    """Start, send the signal to all of it at a random moment, start again, until it ends by itself: how often.

    DVC is killed too, and leaves half of its own files then, which `flows.repair` mends as README says."""
    n_disturbed = 0
    while True:
        project.run(sys.executable, "-m", "flows.repair")
        process = start(project)
        try:
            out, _ = process.communicate(timeout=rng.exponential(mean_seconds))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, number)
            process.communicate()
            wait_for_all(process.pid)
            n_disturbed += 1
            continue
        assert process.returncode == 0, out
        return n_disturbed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "n"),
    [pytest.param(signal.SIGKILL, 100, marks=pytest.mark.very_slow), (signal.SIGKILL, 10), (signal.SIGTERM, 10)],
)
def test_disturbed_at_random_moments(reproduced: Project, tmp_path: Path, number: signal.Signals, n: int) -> None:
    rng, done, passes = np.random.default_rng(n), 0, 0
    while done < n:
        project = fresh(reproduced, tmp_path / str(passes))
        done += disturb_until_done(project, rng, number, mean_seconds=3)
        assert project.md5s() == reproduced.md5s(), (passes, done)
        assert not list((project.folder / "data").glob(".*.tmp"))
        passes += 1
        print(f"{number.name}: {done} times in {passes} passes", flush=True)
        shutil.rmtree(project.folder)


def test_two_at_once_in_one_clone(reproduced: Project, tmp_path: Path) -> None:
    """DVC lets one work and tells the other so; the next run finishes whatever is left."""
    project = fresh(reproduced, tmp_path / "one")
    both = [start(project), start(project)]
    said = [process.communicate()[0] for process in both]
    for process, out in zip(both, said, strict=True):
        assert process.returncode == 0 or WAIT.search(out), out
    project.repro(*REPRO[2:])
    assert project.md5s() == reproduced.md5s()


def test_two_at_once_by_hand(project: Project) -> None:
    """Of one stage: both write under names of their own, and each puts whole outputs in place."""
    before = project.md5s()
    command = ["python", "-m", "stages.train_head"]
    both = [subprocess.Popen(command, cwd=project.folder, env=project.environment()) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    project.run("dvc", "commit", "-f", "train_head")
    assert project.md5s() == before


@pytest.mark.slow
def test_two_clones_at_once_with_one_memory(
    reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNFREEZE_HOME", str(tmp_path / "home"))
    clones = [fresh(reproduced, tmp_path / name) for name in ("one", "two")]
    both = [start(clone) for clone in clones]
    for process in both:
        out, _ = process.communicate()
        assert process.returncode == 0, out
    assert [clone.md5s() for clone in clones] == [reproduced.md5s()] * 2
