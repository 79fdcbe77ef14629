"""Who may work in a clone: one recipe, or one stage after the other."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.graph import PipelineError
from flows.locks import SURE_SECONDS, alone_with_recipe, alone_with_stage, gpus
from flows.process import StoppedError


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_recipe_lets_nobody_in() -> None:
    with alone_with_recipe():
        with pytest.raises(PipelineError, match="another run is at work"), alone_with_recipe():
            pass
        started = time.monotonic()
        with pytest.raises(PipelineError, match="another run is at work"), alone_with_stage(threading.Event()):
            pass
        assert time.monotonic() - started >= SURE_SECONDS
    with alone_with_recipe():
        pass


def test_stages_take_turns_and_a_recipe_does_not_wait_for_them() -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with alone_with_stage(threading.Event()):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.2)
            inside.remove(number)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, number) for number in range(3)]:
            done.result()
    assert most == [1, 1, 1]
    with (
        alone_with_stage(threading.Event()),
        pytest.raises(PipelineError, match="another run is at work"),
        alone_with_recipe(),
    ):
        pass


def test_who_waits_can_be_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with alone_with_stage(threading.Event()), pytest.raises(StoppedError), alone_with_stage(stop):
        pass


@pytest.mark.parametrize(
    ("visible", "seen"),
    [
        (None, ["GPU-a", "GPU-b"]),
        ("1,0", ["GPU-a", "GPU-b"]),
        ("1", ["GPU-a"]),
        ("GPU-b", ["GPU-b"]),
        ("", ["none"]),
    ],
)
def test_a_gpu_has_one_name_however_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, seen: list[str]
) -> None:
    tool = tmp_path / "nvidia-smi"  # a stand-in: no GPU is here
    tool.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA H100 (UUID: GPU-b)'\necho 'GPU 1: NVIDIA H100 (UUID: GPU-a)'\n",
        encoding="utf-8",
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == seen
