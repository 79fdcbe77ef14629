"""Stages that are stopped or killed: they leave soon, the next run goes on, and every byte is that of a quiet run."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from stages.runtime.signals import EXIT_CODE
from tests.conftest import Project

LONG = {"train_head": 40, "augment": 12, "train_full": 6}  # epochs: some seconds


def start(project: Project, stage: str) -> subprocess.Popen[str]:
    command, environment = ["python", "-m", f"stages.{stage}"], project.environment() | {"PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        command, cwd=project.folder, env=environment, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def after_epoch(process: subprocess.Popen[str], epoch: int) -> None:
    """Block until it says so."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(f"epoch {epoch} "):
            return
    pytest.fail(f"it ended before epoch {epoch}: {process.communicate()}")


def contents(folder: Path) -> dict[str, bytes]:
    """Without DVC's .gitignore."""
    found = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("stage", LONG)
def test_terminated_then_killed_then_left_alone(project: Project, stage: str) -> None:
    project.params({f"{stage}.cycle_len": LONG[stage], "checkpoint_seconds": 0.2})
    project.run("python", "-m", f"stages.{stage}")
    expected = contents(project.folder / "data" / stage)
    checkpoints = project.folder / ".unfreeze/checkpoints"
    assert not list(checkpoints.iterdir())
    for name in expected:
        (project.folder / "data" / stage / name).unlink()

    stopped = start(project, stage)
    after_epoch(stopped, 2)
    told = time.monotonic()
    stopped.send_signal(signal.SIGTERM)
    _, said = stopped.communicate(timeout=20)
    assert time.monotonic() - told < 5
    assert stopped.returncode == EXIT_CODE
    lines = ["stopping after the current picture or batch", f"{stage}: stopped before its end: run it again"]
    assert said.splitlines() == lines
    assert len(list(checkpoints.iterdir())) == 1
    assert contents(project.folder / "data" / stage) == {}

    killed = start(project, stage)
    after_epoch(killed, 4)
    killed.kill()
    killed.communicate()

    out = project.run("python", "-m", f"stages.{stage}").stdout
    assert "resuming from a checkpoint: epoch" in out
    assert "\nepoch 2 " not in out
    assert contents(project.folder / "data" / stage) == expected
    assert not list(checkpoints.iterdir())
    assert not list((project.folder / "data").glob(".*.tmp"))


@pytest.mark.parametrize(("shell", "code"), [("bash", 75), ("dash", -15)])
def test_what_was_stopped_is_run_again_by_dvc(project: Project, shell: str, code: int) -> None:
    """bash becomes the stage; dash, often /bin/sh, waits for it, and ends first by the same signal."""
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"no {shell} here")
    project.params({"train_full.cycle_len": 6})
    environment = project.environment() | {"PYTHONUNBUFFERED": "1", "SHELL": path}
    repro = subprocess.Popen(
        ["dvc", "repro", "train_full"], cwd=project.folder, env=environment,
        encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    after_epoch(repro, 2)
    for below in psutil.Process(repro.pid).children(recursive=True):  # the shell too, as who preempts a machine does
        below.terminate()
    _, said = repro.communicate(timeout=30)
    assert repro.returncode == 255
    assert f"failed to run: python -m stages.train_full, exited with {code}" in said
    assert "train_full: stopped before its end: run it again" in said
    assert len(list((project.folder / ".unfreeze/checkpoints").iterdir())) == 1
    assert project.repro("train_full") == ["train_full"]


@pytest.mark.parametrize("stage", ["ingest", "resize", "precompute", "tta", "unfreeze", "lr_find"])
def test_every_long_stage_leaves_when_told(project: Project, stage: str) -> None:
    """Told at its very start: before its first item it looks."""
    before = contents(project.folder / "data" / stage)
    program = (
        "import runpy, signal, sys; sys.argv = [{module!r}]; from stages.runtime import signals;"
        "signals._stop_requested = True;"
        "runpy.run_module({module!r}, run_name='__main__')"
    ).format(module=f"stages.{stage}")
    (project.folder / "told.py").write_text(program, encoding="utf-8")
    done = project.run("env", f"UNFREEZE_HOME={project.folder / 'empty'}", "python", "-m", "told", check=False)
    assert done.returncode == EXIT_CODE, done.stderr
    assert contents(project.folder / "data" / stage) == before
    assert not list((project.folder / "data").glob(".*.tmp"))


def test_a_stage_whose_dvc_was_killed_stops_and_replaces_nothing(project: Project) -> None:
    """The parent of the real Python is DVC itself (a shell that ends with one command becomes it)."""
    project.shim = None
    project.params({"train_head.cycle_len": 1000, "train_head.n_cycles": 50})
    repro = subprocess.Popen(
        ["dvc", "repro", "train_head"], cwd=project.folder, env=project.environment() | {"SHELL": "/bin/bash"},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    checkpoints, deadline = project.folder / ".unfreeze/checkpoints", time.monotonic() + 60
    stages: list[psutil.Process] = []
    while not any("stages.train_head" in one.cmdline() for one in stages) and time.monotonic() < deadline:
        time.sleep(0.2)
        stages = psutil.Process(repro.pid).children(recursive=True)
    time.sleep(6)
    repro.kill()
    repro.wait()
    _, alive = psutil.wait_procs(stages, timeout=10)
    assert not alive
    assert list(checkpoints.iterdir())
    assert contents(project.folder / "data/train_head") == {}
