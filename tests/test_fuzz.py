"""A few hundred spoiled inputs of each kind; and the fuzzer sees what it is there to see."""

import ctypes
import sys
import time
from collections.abc import Callable

import pytest

from tests.fuzz import GOOD, KINDS, fuzz
from tests.fuzz_worker import MIB, Target

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_spoiled_inputs_are_taken_or_refused_and_nothing_else() -> None:
    counts, failures = fuzz(KINDS, n=200, seed=0)
    assert not failures, "\n".join(failures)
    for kind in KINDS:
        assert all(counts[kind, outcome] > 20 for outcome in GOOD), counts
        assert sum(counts[kind, outcome] for outcome in GOOD) == 200


def looks_like(action: Callable[[], object]) -> Target:
    """Three inputs, the second of which does that."""

    def look(data: bytes) -> str:
        if data == b"1":
            action()
        return "fine"

    return lambda number: str(number).encode(), look


def crash() -> Target:
    return looks_like(lambda: 1 / 0)


def segfault() -> Target:
    return looks_like(lambda: ctypes.string_at(0))


def hang() -> Target:
    return looks_like(lambda: sum(iter(int, 1)))


def memory() -> Target:
    return looks_like(lambda: b"x" * ((MIB + 50) * 2**20))


def clutter() -> Target:
    return looks_like(lambda: print("Warning: hm", file=sys.stderr))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash", "ZeroDivisionError: division by zero"),
        ("segfault", "exit code -11"),
        ("memory", "MiB; fine"),
        ("clutter", "Warning: hm"),
    ],
)
def test_each_failure_is_seen_and_named_and_the_next_input_is_tried(name: str, message: str) -> None:
    kind = f"tests.test_fuzz:{name}"
    counts, failures = fuzz([kind], n=3, seed=0)
    assert counts[kind, "fine"] == 2
    assert len(failures) == 1
    assert f"--n 1 --seed 1 {kind}: " in failures[0]
    assert message in failures[0]


def test_a_hang_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUZZ_SECONDS", "1")
    started = time.monotonic()
    assert fuzz(["tests.test_fuzz:hang"], n=3, seed=0)[1][0].startswith("hang: --n 1 --seed 1 tests.test_fuzz:hang")
    assert time.monotonic() - started < 60
