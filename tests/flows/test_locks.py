"""Who may work in a clone: one recipe, or one stage after the other."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.errors import PipelineError, StoppedError
from flows.processes.locks import STALE_NAME_SECONDS, lock_clone_for_run, lock_clone_for_stage


@pytest.fixture(autouse=True)
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_recipe_lets_nobody_in() -> None:
    with lock_clone_for_run():
        with pytest.raises(PipelineError, match="another run is at work"), lock_clone_for_run():
            pass
        started = time.monotonic()
        with pytest.raises(PipelineError, match="another run is at work"), lock_clone_for_stage(threading.Event()):
            pass
        assert time.monotonic() - started >= STALE_NAME_SECONDS
    with lock_clone_for_run():
        pass


def test_stages_take_turns_and_a_recipe_does_not_wait_for_them() -> None:
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        with lock_clone_for_stage(threading.Event()):
            inside.append(number)
            most.append(len(inside))
            time.sleep(0.2)
            inside.remove(number)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work, number) for number in range(3)]:
            done.result()
    assert most == [1, 1, 1]
    with (
        lock_clone_for_stage(threading.Event()),
        pytest.raises(PipelineError, match="another run is at work"),
        lock_clone_for_run(),
    ):
        pass


def test_who_waits_can_be_stopped() -> None:
    stop = threading.Event()
    stop.set()
    with lock_clone_for_stage(threading.Event()), pytest.raises(StoppedError), lock_clone_for_stage(stop):
        pass
