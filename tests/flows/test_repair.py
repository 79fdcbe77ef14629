"""Half-written files of DVC's, as a kill leaves them."""

import re
import sys
from pathlib import Path

import pytest

from flows.errors import PipelineError
from flows.repair import ENTRY, repair_lock
from tests.conftest import Project

OUT = "    outs:\n    - path: data/x"


@pytest.mark.parametrize(("n_whole", "end"), [(None, ""), (0, "    ou"), (3, f"{OUT}\n      hash: md5\n"), (10, OUT)])
def test_a_lock_that_was_cut_off_keeps_its_whole_entries(project: Project, n_whole: int | None, end: str) -> None:
    lock, before = project.folder / "dvc.lock", project.md5s()
    text = lock.read_text(encoding="utf-8")
    outs = [found.start() for found in re.finditer("    outs:", text)]
    lock.write_text("" if n_whole is None else text[: outs[n_whole]] + end, encoding="utf-8")
    out = project.run(sys.executable, "-m", "flows.repair").stdout
    assert out.startswith(f"dvc.lock was cut off: {n_whole or 0} complete entries were kept. The other stages come")
    assert (project.folder / ".dvc/tmp/dvc.lock.broken").exists()
    assert len(ENTRY.findall(lock.read_text(encoding="utf-8") if lock.exists() else "")) == (n_whole or 0)
    assert project.repro("evaluate", "lr_find") == []  # what was lost is restored: nothing runs again
    assert project.md5s() == before


ENTRY_OF = "schema: '2.0'\nstages:\n  one:\n    cmd: run\n    {kind}:\n    - path: a\n      {item}\n"


@pytest.mark.parametrize(
    "text",
    [
        ENTRY_OF.format(kind="deps", item="hash: md5\n      etag: abc"),
        ENTRY_OF.format(kind="outs", item="hash: md5\n      files: []"),
        ENTRY_OF.format(kind="outs", item="md5: abc"),
        ENTRY_OF.format(kind="outs", item="hash: md5\n      md5: abc").rstrip(),
    ],
)
def test_a_whole_one_is_left_alone(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(text, encoding="utf-8")
    assert repair_lock(lock, tmp_path, "dvc.lock") == ""
    assert lock.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("text", ["schema: '3.0'\n", "<<<<<<< HEAD\nschema", "schema: '2.0'\nstages:\n<<<<<<< HEAD\n"])
def test_one_that_was_not_cut_off_is_not_touched(tmp_path: Path, text: str) -> None:
    lock = tmp_path / "dvc.lock"
    lock.write_text(text, encoding="utf-8")
    with pytest.raises(PipelineError, match="Repair it by hand"):
        repair_lock(lock, tmp_path, "dvc.lock")
    assert lock.read_text(encoding="utf-8") == text


def test_dvcs_table_of_who_works_where(project: Project) -> None:
    rwlock = project.folder / ".dvc/tmp/rwlock"
    rwlock.write_text('{"write": {"/some/pa', encoding="utf-8")
    assert "Unable to read RWLock-file" in project.run("dvc", "repro", "-f", "split", check=False).stderr
    assert project.run(sys.executable, "-m", "flows.repair").stdout == "rwlock was cut off and has been deleted\n"
    assert project.repro("evaluate", "lr_find") == []
    assert project.run(sys.executable, "-m", "flows.repair").stdout == "nothing to repair\n"
