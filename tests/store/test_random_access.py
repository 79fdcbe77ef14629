"""However much of a file is read, and wherever, nothing of it stays in memory."""

import os
import re
from pathlib import Path

import numpy as np
import pytest

from stages.store.random_access import RandomAccessFile

SIZE = 3 * 2**26


def resident_mib() -> float:
    return int(re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))[0]) / 1024


def test_what_was_read_does_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(SIZE))
    file, before = RandomAccessFile(path), resident_mib()
    for offset in np.random.default_rng(0).integers(SIZE, size=3000).tolist():
        file.read(offset, 4096)
    assert resident_mib() - before < 8


def test_a_part_is_read_whole_and_one_that_is_cut_off_is_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(range(100)))
    file, pread = RandomAccessFile(path), os.pread
    monkeypatch.setattr(os, "pread", lambda number, n, offset: pread(number, min(n, 7), offset))
    assert file.read(10, 50) == bytes(range(10, 60))
    path.unlink()
    assert file.read(90, 50) == bytes(range(90, 100))
    assert file.read(100, 1) == b""
