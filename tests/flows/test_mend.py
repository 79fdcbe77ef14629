"""Half-written files of DVC's, as a kill leaves them."""

import re
import sys

import pytest

from flows.mend import ENTRY, mend_lock
from tests.conftest import Project

OUT = "    outs:\n    - path: data/x"


@pytest.mark.parametrize(("n_whole", "end"), [(None, ""), (0, "    ou"), (3, f"{OUT}\n      hash: md5\n"), (10, OUT)])
def test_a_lock_that_was_cut_off_keeps_its_whole_entries(project: Project, n_whole: int | None, end: str) -> None:
    lock, before = project.folder / "dvc.lock", project.md5s()
    text = lock.read_text()
    outs = [found.start() for found in re.finditer("    outs:", text)]
    lock.write_text("" if n_whole is None else text[: outs[n_whole]] + end)
    out = project.run(sys.executable, "-m", "flows.mend").stdout
    assert out == f"dvc.lock was cut off: {n_whole or 0} whole entries kept; the others come back at the next run\n"
    assert len(ENTRY.findall(lock.read_text() if lock.exists() else "")) == (n_whole or 0)
    assert project.repro("evaluate", "lr_find") == []  # what was lost is restored: nothing runs again
    assert project.md5s() == before


def test_a_whole_one_is_left_alone(project: Project) -> None:
    lock = project.folder / "dvc.lock"
    before = lock.read_bytes()
    assert mend_lock(lock) == ""
    assert lock.read_bytes() == before


def test_dvcs_table_of_who_works_where(project: Project) -> None:
    rwlock = project.folder / ".dvc/tmp/rwlock"
    rwlock.write_text('{"write": {"/some/pa')
    assert "Unable to read RWLock-file" in project.run("dvc", "repro", "-f", "split", check=False).stderr
    assert project.run(sys.executable, "-m", "flows.mend").stdout == "rwlock was cut off: removed\n"
    assert project.repro("evaluate", "lr_find") == []
    assert project.run(sys.executable, "-m", "flows.mend").stdout == "nothing to mend\n"
