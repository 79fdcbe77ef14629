"""Pipelines of shell commands, in shapes that the recipe's own does not have. `dvc repro` says what is right."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from ruamel.yaml import YAML

from tests.conftest import Project, copy_project, start
from tests.flows.conftest import Flows, Server
from tests.flows.test_run import locks

COPY = {"cmd": "mkdir -p d && cp params.yaml d/f.txt", "params": ["x"]}


def pipeline(server: Server, folder: Path, stages: Mapping[str, object]) -> Flows:
    """A project with these stages, run once by plain `dvc repro`."""
    copy_project(folder)
    (folder / "params.yaml").write_text(json.dumps({"x": 1}), encoding="utf-8")
    YAML().dump({"stages": dict(stages)}, folder / "dvc.yaml")
    project = start(Project(folder, shim=None))
    project.run("dvc", "repro", "-q")
    return Flows(project, server)


def run(flows: Flows, *arguments: str) -> str:
    return flows.run(*arguments, targets=[])


@pytest.mark.parametrize(("out", "dep"), [("d", "d/f.txt"), pytest.param("d/f.txt", "d", marks=pytest.mark.slow)])
def test_a_part_of_an_output(server: Server, tmp_path: Path, out: str, dep: str) -> None:
    """Its hash is not the output's, so the plan does not guess."""
    stages = {"a": COPY | {"outs": [out]}, "b": {"cmd": "cat d/f.txt > b.txt", "deps": [dep], "outs": ["b.txt"]}}
    flows = pipeline(server, tmp_path, stages)
    for x in ("2", "1"):  # 1 is restored: the disk still has 2 when the plan is made
        run(flows, "-S", f"x={x}")
        assert x in (tmp_path / "b.txt").read_text(encoding="utf-8")
    assert flows.project.repro() == []


@pytest.mark.slow
def test_data_that_dvc_add_keeps(server: Server, tmp_path: Path) -> None:
    copy_project(tmp_path)
    YAML().dump({"stages": {"n": {"cmd": "ls pics > n", "deps": ["pics"], "outs": ["n"]}}}, tmp_path / "dvc.yaml")
    project = start(Project(tmp_path, shim=None))
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics/1").write_text("1", encoding="utf-8")
    project.run("dvc", "add", "-q", "pics")
    project.run("dvc", "repro", "-q")
    flows = Flows(project, server)
    assert "2 unchanged" in run(flows)
    (tmp_path / "pics/2").write_text("2", encoding="utf-8")
    run(flows)
    assert (tmp_path / "n").read_text(encoding="utf-8") == "1\n2\n"
    assert project.repro() == []


@pytest.mark.slow
def test_names_with_blanks_and_signs_go_to_the_remote_and_back(server: Server, tmp_path: Path) -> None:
    make = {"foreach": ["red ä", "blue"], "do": {"cmd": 'echo 1 > "${item}"', "params": ["x"], "outs": ["${item}"]}}
    flows = pipeline(server, tmp_path / "one", {"make": make})
    flows.project.run("dvc", "remote", "add", "-d", "team", str(tmp_path / "remote"))
    flows.project.run("git", "commit", "-qam", "a remote")
    assert "2 unchanged" in run(flows, "--push")
    flows.project.run("git", "add", "-A")
    flows.project.run("git", "commit", "-qm", "results")
    flows.project.run("git", "clone", "-q", ".", str(tmp_path / "two"))
    said = run(Flows(Project(tmp_path / "two", shim=None), server), "--pull")
    assert "2 restored" in said
    assert (tmp_path / "two/red ä").read_text(encoding="utf-8") == "1\n"


def test_what_looks_like_markup_is_shown(server: Server, tmp_path: Path) -> None:
    flows = pipeline(server, tmp_path, {"a": COPY | {"outs": ["d"]}})
    flows.project.params({"x": "[/mnt/x]"})
    assert "[/mnt/x]" in flows.project.run(sys.executable, "-m", "flows.plan").stdout
    assert "[/mnt/x]" in run(flows)


@pytest.mark.slow
def test_a_folder_that_the_remote_has_lost_is_made_here(server: Server, tmp_path: Path) -> None:
    flows = pipeline(server, tmp_path / "one", {"a": COPY | {"outs": ["d"]}})
    flows.project.run("dvc", "remote", "add", "-d", "team", str(tmp_path / "remote"))
    run(flows, "--push")
    run(flows, "--push", "-S", "x=2")
    flows.project.run("git", "add", "-A")
    flows.project.run("git", "commit", "-qm", "x = 2")
    flows.project.run("dvc", "gc", "-w", "-c", "-f", "-q")
    flows.project.run("git", "clone", "-q", ".", str(tmp_path / "two"))
    assert "1 executed" in run(Flows(Project(tmp_path / "two", shim=None), server), "--pull", "-S", "x=1")


@pytest.mark.slow
def test_what_the_run_cache_has_is_pushed(server: Server, tmp_path: Path) -> None:
    flows = pipeline(server, tmp_path / "one", {"a": COPY | {"outs": ["d"]}})
    one = flows.project
    one.run("dvc", "remote", "add", "-d", "team", str(tmp_path / "remote"))
    one.params({"x": 2})
    one.repro()
    one.run("git", "add", "-A")
    one.run("git", "commit", "-qm", "x = 2")
    one.run("git", "clone", "-q", ".", str(tmp_path / "two"))
    one.params({"x": 1})
    one.run(sys.executable, "-m", "flows.sharing.remote", "push-cached-result", "a")
    assert "1 restored" in run(Flows(Project(tmp_path / "two", shim=None), server), "--pull", "-S", "x=1")


@pytest.mark.slow
def test_a_stage_that_prints_much_is_not_held_up(server: Server, tmp_path: Path) -> None:
    (tmp_path / ".unfreeze/receipts").mkdir(parents=True)
    (tmp_path / ".unfreeze/receipts/a.json").write_text("", encoding="utf-8")  # damaged: it is only a hint
    flows = pipeline(server, tmp_path, {"a": COPY | {"cmd": "seq 300000; mkdir d; echo > d/f.txt", "outs": ["d"]}})
    started = time.monotonic()
    said = run(flows, "--force")
    assert time.monotonic() - started < 30  # a record a line took 4 ms each: 20 minutes
    assert "lines left out" in said
    assert "1 executed" in said


@pytest.mark.parametrize("sign", [signal.SIGKILL, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_takes_its_stage_with_it(server: Server, tmp_path: Path, sign: signal.Signals) -> None:
    flows = pipeline(server, tmp_path, {"a": COPY | {"outs": ["d"]}})
    flows.project.params({"x": 2})
    path = tmp_path / "dvc.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("mkdir -p d", "sleep 62 && mkdir -p d"), encoding="utf-8")
    process = subprocess.Popen(
        flows.command(targets=[]), cwd=tmp_path, env=flows.project.environment(), stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    sleeping = wait_for("sleep 62", tmp_path)
    process.send_signal(sign)
    process.wait(timeout=10)
    assert not psutil.wait_procs([sleeping], timeout=10)[1]
    for _ in range(50):
        if not locks(flows.project):
            break
        time.sleep(0.2)
    assert locks(flows.project) == ""
    path.write_text(path.read_text(encoding="utf-8").replace("sleep 62 && ", ""), encoding="utf-8")
    assert "1 executed" in run(flows)


@pytest.mark.slow
def test_ctrl_c_in_a_terminal_without_a_server(server: Server, tmp_path: Path) -> None:
    """The terminal sends it to everybody; the temporary server has to hear the end of the run all the same."""
    flows = pipeline(server, tmp_path / "project", {"a": COPY | {"outs": ["d"]}})
    path = tmp_path / "project/dvc.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("mkdir -p d", "sleep 63 && mkdir -p d"), encoding="utf-8")
    environment = flows.project.environment() | {"PREFECT_HOME": str(tmp_path / "home")}
    environment.pop("PREFECT_API_URL", None)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path / "project")
        os.execve(sys.executable, [sys.executable, "-m", "flows.run"], environment)
    wait_for("sleep 63", tmp_path / "project")
    os.write(terminal, b"\x03")
    started, said = time.monotonic(), b""
    with suppress(OSError):  # the end of a terminal
        while time.monotonic() - started < 60:
            said += os.read(terminal, 4096)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert time.monotonic() - started < 15, said.decode()
    assert b"1 cancelled" in said


def wait_for(command: str, folder: Path) -> psutil.Process:
    """The process of a stage of the project in that folder."""
    for _ in range(600):
        for process in psutil.process_iter(["cmdline"]):
            if " ".join(process.info["cmdline"] or []) == command and process.cwd() == str(folder):
                return process
        time.sleep(0.1)
    pytest.fail(f"no {command}")
