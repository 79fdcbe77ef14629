"""However much of a mapped file is read, little of it stays in memory."""

import re
from pathlib import Path

from stages.common.mapped import MOST_BYTES, MappedFile

BLOCK = 2**20


def mapped_mib() -> float:
    return int(re.findall(r"RssFile:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024


def test_what_was_read_does_not_stay(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        path.write_bytes(bytes(3 * MOST_BYTES // 2))
    files, before, most = [MappedFile(path) for path in paths], mapped_mib(), 0.0
    view = files[0].data[:BLOCK]
    for file in files:
        for start in range(0, len(file.data), BLOCK):
            sum(file.data[start : start + BLOCK : 4096])
            file.was_read(BLOCK)
            most = max(most, mapped_mib() - before)
    assert most < 1.3 * MOST_BYTES / 2**20
    assert bytes(view) == bytes(BLOCK)
