"""In what a stage runs, whatever the account and the locale of the one who started it."""

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flows.processes import process
from tests.conftest import ROOT


@pytest.mark.parametrize(
    "named", ["/usr/sbin/nologin", "/bin/false", "/bin/true", "/not/there", "/etc/passwd", "/", ""]
)
def test_a_shell_that_runs_nothing_is_not_used(named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", named)
    assert process.environment()["SHELL"] == shutil.which("bash")


def test_a_shell_that_works_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "own shell"
    own.symlink_to("/bin/sh")
    monkeypatch.setenv("SHELL", str(own))
    assert process.environment()["SHELL"] == str(own)


def test_a_stage_runs_for_a_service_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SHELL", shutil.which("nologin") or "/not/there")
    said = in_a_repository(monkeypatch, tmp_path, "echo done > out")
    assert "Running stage 'a':" in said
    assert (tmp_path / "out").read_text(encoding="utf-8") == "done\n"


def test_what_a_stage_says_is_read_whatever_the_locale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}.items():
        monkeypatch.setenv(name, value)
    said = in_a_repository(monkeypatch, tmp_path, "python -c 'print(chr(0x2212), flush=True)' && touch out")
    assert "\N{MINUS SIGN}" in said


def in_a_repository(monkeypatch: pytest.MonkeyPatch, folder: Path, command: str) -> str:
    """What it says of `dvc repro` there, for one stage with this command."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.chdir(folder)
    (folder / "dvc.yaml").write_text(f"stages: {{a: {{cmd: {command!r}, outs: [out]}}}}\n", encoding="utf-8")
    lines = list[str]()
    for arguments in (["init", "--no-scm", "-q"], ["repro"]):
        process.run(["dvc", *arguments], lines.append, threading.Event())
    return "\n".join(lines)


def test_the_python_of_flows_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert process.environment()["PATH"] == f"{Path(sys.executable).parent}:/usr/bin:/bin"


def test_a_plan_is_printed_whatever_the_locale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    in_a_repository(monkeypatch, tmp_path, "touch 'größe.txt' out")
    (tmp_path / "dvc.yaml").write_text("stages: {größe: {cmd: 'true', outs: [größe]}}\n", encoding="utf-8")
    ascii_alone = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "flows.plan"], env=os.environ | ascii_alone, capture_output=True, encoding="ascii"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "gr\\xf6\\xdfe" in done.stdout
