"""An error is one line, whatever it quotes, and Ctrl-C before a stage has begun."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.errors import StageError, one_line
from stages.runtime.stage import open_many_files
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no folder x:\n  mend it", "no folder x: mend it"),
        ("a label \x1b[2J\x07 and a name \udce9", "a label \ufffd[2J\ufffd and a name \ufffd"),
        ("\u732b \U0001f408 \u202eabc", "\u732b \U0001f408 \ufffdabc"),
        ("x" * 2001, "x" * 2000 + "..."),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(StageError(text)) == line


@pytest.mark.parametrize(
    ("raised", "line"),
    [("KeyboardInterrupt", "the stage was stopped before it started: run it again"), ("OSError", "OSError")],
)
def test_ctrl_c_while_a_stage_imports_is_one_line(tmp_path: Path, raised: str, line: str) -> None:
    (tmp_path / "pandas.py").write_text(
        f"raise {raised}", encoding="utf-8"
    )  # in the place of the first of its slow imports
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "stages.evaluate"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False)
    assert done.stderr.splitlines()[-1] == line
    assert (done.stderr.count("\n") == 1) == (raised == "KeyboardInterrupt")
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("before", "taken", "after"),
    [
        ((1024, 4096), 1 << 30, 4096),
        ((256, resource.RLIM_INFINITY), 10240, 10240),  # macOS
        ((256, resource.RLIM_INFINITY), 61440, 32768),
        ((256, resource.RLIM_INFINITY), resource.RLIM_INFINITY, resource.RLIM_INFINITY),
        ((20000, resource.RLIM_INFINITY), 10240, 20000),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 10240, resource.RLIM_INFINITY),
    ],
)
def test_as_many_files_can_be_open_as_the_system_lets_us(
    monkeypatch: pytest.MonkeyPatch, before: tuple[int, int], taken: int, after: int
) -> None:
    """A stand-in for a system that takes a limit of at most `taken`."""
    limits = [before]

    def take(_: int, wanted: tuple[int, int]) -> None:
        infinite = wanted[0] == resource.RLIM_INFINITY
        if taken != resource.RLIM_INFINITY and (infinite or wanted[0] > taken):
            raise ValueError("current limit exceeds maximum limit")
        limits.append(wanted)

    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", take)
    assert open_many_files() == after
    assert limits[-1] == (after, before[1])


def test_windows_is_told_in_one_line() -> None:
    """A stand-in: this machine says that it is one."""
    program = "import sys; sys.platform = 'win32'; sys.argv = ['-m']; import stages.resize"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 1
    assert done.stderr.startswith("stages run on Linux and macOS; on Windows use WSL2")
    assert done.stderr.count("\n") == 1
