"""A segment is a file of the item store: values one after the other, then a table (sha256 of the picture, offset, size,
crc32; sorted by sha256), then a footer with the crc32 of the table. Segments never change; checksums reveal damage.
"""

import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages.store.random_access import RandomAccessFile

ROW = np.dtype([("sha256", ">u8", 4), ("offset", "<u8"), ("size", "<u4"), ("crc32", "<u4")])
FOOTER = struct.Struct("<QI4s")
MAGIC = b"unf1"


class Segment:
    """An open segment, of which only the table is in memory. Raises OSError, and ValueError if the file is damaged."""

    def __init__(self, path: Path) -> None:
        self.path, self.used = path, False
        self.file = RandomAccessFile(path)
        end = self.file.size - FOOTER.size
        if end < 0 or len(footer := self.file.read(end, FOOTER.size)) < FOOTER.size:
            raise ValueError("cut off")
        rows, crc, magic = FOOTER.unpack(footer)
        start = end - rows * ROW.itemsize
        if magic != MAGIC or start < 0 or zlib.crc32(table := self.file.read(start, end - start)) != crc:
            raise ValueError("damaged")
        self.table = np.frombuffer(table, ROW)

    def value(self, row: int) -> bytes | None:
        """Returns the value in a row of the table, or None if its bytes are damaged."""
        _, offset, size, crc = self.table[row]
        found = self.file.read(int(offset), int(size))
        return found if zlib.crc32(found) == crc else None


def digests(sha256s: Sequence[str]) -> npt.NDArray[np.uint64]:
    """Returns hex digests as big-endian numbers, uint64 (n, 4), which sort like the digests."""
    return np.frombuffer(bytes.fromhex("".join(sha256s)), ">u8").reshape(-1, 4)


def make_folder(folder: Path) -> None:
    """Creates the folder and its parents if they are missing. Raises OSError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # another process deleted it between mkdir and the check that it is a folder
        folder.mkdir(parents=True, exist_ok=True)


def write_segment(folder: Path, sha256s: Sequence[str], values: Sequence[bytes]) -> Path:
    """Writes a segment atomically, and creates the folder if it was deleted. Returns the path. Raises OSError."""
    table = np.zeros(len(sha256s), ROW)
    table["sha256"] = digests(sha256s)
    table["size"] = [len(value) for value in values]
    table["offset"] = np.cumsum(table["size"], dtype=np.uint64) - table["size"]
    table["crc32"] = [zlib.crc32(value) for value in values]
    table = table[np.lexsort(table["sha256"].T[::-1])]
    path = folder / f"{uuid.uuid4().hex}.seg"
    temporary = path.with_suffix(".tmp")
    make_folder(folder)
    try:
        with temporary.open("wb") as file:
            file.writelines(values)
            file.write(table.tobytes())
            file.write(FOOTER.pack(len(table), zlib.crc32(table.tobytes()), MAGIC))
        return temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
