"""A file for scattered reads, which is not mapped into memory: in a file that was just written the kernel maps a whole
large folio, up to 2 MiB, around each byte that is read. A thousand scattered pictures held 48 MB of 61.
"""

import mmap
import os
from pathlib import Path
from weakref import finalize


class RandomAccessFile:
    """Stays open while the object is referenced, and readable even if the file is deleted. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._number)
        self.size = os.fstat(self._number).st_size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Returns fewer bytes if the file ends before. Safe to call from several threads."""
        found = b""
        while len(found) < n_bytes and (part := os.pread(self._number, n_bytes - len(found), offset + len(found))):
            found += part  # Linux reads 2 GiB at a time
        return found

    def as_mmap(self) -> mmap.mmap:
        """The file as a memory map, for short use. Raises ValueError if the file is empty."""
        return mmap.mmap(self._number, 0, access=mmap.ACCESS_READ)
