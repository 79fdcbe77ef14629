"""Which GPUs a stage gets. There is no GPU here: a script in the place of nvidia-smi says that there are two."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from flows.errors import PipelineError, StoppedError
from flows.processes import gpus
from flows.processes.gpus import gpu_slot, lock_folder, open_lock, visible_gpus
from tests.conftest import ROOT
from tests.flows.conftest import Server
from tests.flows.test_any_pipeline import COPY, pipeline, run

MOCK_NVIDIA_SMI = """#!/bin/sh
echo 'GPU 0: NVIDIA H100 (UUID: GPU-b{0})'
echo 'GPU 1: NVIDIA H100 (UUID: GPU-a{0})'
"""


@pytest.fixture
def mock_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Two GPUs with UUIDs of this test's own, GPU-b... and GPU-a...: their locks are the machine's."""
    own = f"{os.getpid()}-{tmp_path.name}"
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "nvidia-smi").write_text(MOCK_NVIDIA_SMI.format(own), encoding="utf-8")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return own


def slot(n: int = 1, pool: str = "gpu", stop: threading.Event | None = None) -> dict[str, str]:
    """What a stage would get now."""
    with gpu_slot(pool, n, stop or threading.Event(), lambda _: None) as settings:
        return settings


def stopped() -> threading.Event:
    stop = threading.Event()
    stop.set()
    return stop


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["GPU-b", "GPU-a"]),
        ("1,0", ["GPU-a", "GPU-b"]),
        ("1", ["GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("0,GPU-b,0", ["GPU-b"]),
        ("0,7,1", ["GPU-b"]),  # as CUDA reads it: nothing after a number that is none
        ("-1", []),
        ("", []),
        ("MIG-1", ["MIG-1"]),
    ],
)
def test_a_gpu_has_one_name_however_it_is_asked_for(
    mock_nvidia_smi: str, monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: list[str]
) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [one.removesuffix(mock_nvidia_smi) for one in visible_gpus()] == seen


def test_each_stage_gets_a_gpu_of_its_own_and_the_third_waits(mock_nvidia_smi: str) -> None:
    log: list[str] = []
    with ExitStack() as stack:
        first, second = (stack.enter_context(gpu_slot("gpu", 1, threading.Event(), log.append)) for _ in range(2))
        assert first == {"CUDA_VISIBLE_DEVICES": f"GPU-b{mock_nvidia_smi}"}
        assert second == {"CUDA_VISIBLE_DEVICES": f"GPU-a{mock_nvidia_smi}"}
        with pytest.raises(StoppedError), gpu_slot("gpu", 1, stopped(), log.append):
            pass
    assert log == ["waiting: fewer than 1 of this machine's GPUs are free"]
    assert slot(2) == {"CUDA_VISIBLE_DEVICES": f"GPU-b{mock_nvidia_smi},GPU-a{mock_nvidia_smi}"}


def test_all_or_nothing(mock_nvidia_smi: str) -> None:
    """Who waits for two holds none: a stage that needs one gets the free one meanwhile."""
    stop = threading.Event()
    with ThreadPoolExecutor() as pool, gpu_slot("gpu", 1, threading.Event(), print):
        waiting = pool.submit(slot, 2, "gpu", stop)
        time.sleep(0.5)
        assert not waiting.done()
        assert slot() == {"CUDA_VISIBLE_DEVICES": f"GPU-a{mock_nvidia_smi}"}
        stop.set()
        with pytest.raises(StoppedError):
            waiting.result()


def test_more_than_there_are(mock_nvidia_smi: str) -> None:
    with pytest.raises(PipelineError, match="needs 3 GPUs .* and 2 can be seen here"):
        slot(3)


def test_other_pools_see_no_gpu_and_wait_for_none(mock_nvidia_smi: str) -> None:
    with gpu_slot("gpu", 2, threading.Event(), print):
        assert slot(pool="cpu") == slot(pool="") == {"CUDA_VISIBLE_DEVICES": ""}


@pytest.mark.parametrize("visible", [None, ""])
def test_without_any_gpu_one_stage_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None
) -> None:
    monkeypatch.setattr(gpus, "LOCK_FOLDERS", (str(tmp_path),))  # other runs on this machine may hold that lock
    tmp_path.chmod(0o1777)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with gpu_slot("gpu", 2, threading.Event(), print) as settings:
        assert settings == ({} if visible is None else {"CUDA_VISIBLE_DEVICES": ""})
        with pytest.raises(StoppedError):
            slot(stop=stopped())


HOLD = """
import sys, threading
from flows.processes.gpus import gpu_slot
with gpu_slot("gpu", 2, threading.Event(), print):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_lock_is_the_machines_whoever_holds_it_and_whatever_tmpdir(
    mock_nvidia_smi: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ["env", f"TMPDIR={tmp_path}", sys.executable, "-c", HOLD]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoppedError):
            slot(stop=stopped())
        process.kill()
    assert len(slot(2)["CUDA_VISIBLE_DEVICES"].split(",")) == 2
    lock = lock_folder() / f"unfreeze-gpu-GPU-a{mock_nvidia_smi}.lock"
    assert lock.stat().st_mode & 0o777 == 0o666
    assert not lock.is_relative_to(tmp_path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_another_users_lock_is_opened_without_writing() -> None:
    """Whatever their umask was, and where fs.protected_regular forbids to open it for writing."""
    with TemporaryDirectory(dir=lock_folder()) as name:
        folder = Path(name)
        folder.chmod(0o1777)
        (folder / "a.lock").touch(0o644)
        program = f"import os; from flows.processes.gpus import *; os.setuid(65534); open_lock(Path('{name}/a.lock'))"
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
        (folder / "b.lock").symlink_to("/etc/passwd")
        with pytest.raises(PipelineError, match="delete that file"):
            open_lock(folder / "b.lock")


@pytest.mark.parametrize("gpus", [0, "two", True])
def test_a_number_of_gpus_that_is_none(tmp_path: Path, server: Server, gpus: object) -> None:
    flows = pipeline(server, tmp_path, {"a": COPY | {"outs": ["d"], "meta": {"pool": "gpu", "gpus": gpus}}})
    done = flows.project.run(sys.executable, "-m", "flows.plan", check=False)
    assert done.stderr == f"plan: a: meta.gpus in dvc.yaml is {gpus!r}: expected 1 or more\n"


@pytest.mark.slow
def test_what_a_stage_is_told(mock_nvidia_smi: str, tmp_path: Path, server: Server) -> None:
    tell = "sh -c 'printf \"$CUDA_VISIBLE_DEVICES\" > {0}'"
    stages = {
        "one": {"cmd": tell.format("one"), "outs": ["one"], "meta": {"pool": "gpu"}},
        "two": {"cmd": tell.format("two"), "deps": ["one"], "outs": ["two"], "meta": {"pool": "gpu", "gpus": 2}},
        "none": {"cmd": tell.format("none"), "outs": ["none"], "meta": {"pool": "cpu"}},
    }
    project = tmp_path / "project"
    project.mkdir()
    flows = pipeline(server, project, stages)
    assert "3 executed" in run(flows, "--force")
    both = {f"GPU-a{mock_nvidia_smi}", f"GPU-b{mock_nvidia_smi}"}
    assert {(project / "one").read_text(encoding="utf-8")} < both
    assert {*(project / "two").read_text(encoding="utf-8").split(",")} == both
    assert (project / "none").read_text(encoding="utf-8") == ""
