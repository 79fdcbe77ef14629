"""An error is one line, whatever it quotes, and Ctrl-C before a stage has begun."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.runtime.errors import StageError, one_line
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
    ("raised", "line"), [("KeyboardInterrupt", "stopped before its start: run it again"), ("OSError", "OSError")]
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
