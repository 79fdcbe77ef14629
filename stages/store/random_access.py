"""A file read here and there, and not mapped into memory: of one that was just written the kernel maps the
whole of a large folio, up to 2 MiB, around each byte that is read. A thousand scattered pictures held 48 MB of 61.
"""

import mmap
import os
from pathlib import Path
from weakref import finalize


class RandomAccessFile:
    """Open as long as it is referred to, and readable then also where it is deleted. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._number = os.open(path, os.O_RDONLY)
        finalize(self, os.close, self._number)
        self.size = os.fstat(self._number).st_size

    def read(self, offset: int, n_bytes: int) -> bytes:
        """Fewer bytes where the file ends before. Threads do not disturb each other."""
        found = b""
        while len(found) < n_bytes and (part := os.pread(self._number, n_bytes - len(found), offset + len(found))):
            found += part  # Linux reads 2 GiB at a time
        return found

    def mapped(self) -> mmap.mmap:
        """All of it, for who looks into it and lets it go. Raises ValueError where it is empty."""
        return mmap.mmap(self._number, 0, access=mmap.ACCESS_READ)
