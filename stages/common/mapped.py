"""Files mapped into memory, whose pages are handed back as they were read: else memory grows with the pictures."""

import mmap
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

MOST_BYTES = 2**25  # mapped of all files together
AROUND_BYTES = 2**16  # that the kernel maps beside what is read (fault_around_bytes)


class MappedFile:
    """`data`: all of it, read-only. Raises OSError; ValueError where the file is empty."""

    _files: ClassVar["WeakSet[MappedFile]"] = WeakSet()
    _bytes: ClassVar[int] = 0

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.data = memoryview(self._map)
        self._files.add(self)

    def was_read(self, n_bytes: int) -> None:
        """Views stay valid: what is read again is mapped again, from the system's cache."""
        MappedFile._bytes += n_bytes + AROUND_BYTES
        if MappedFile._bytes > MOST_BYTES:
            MappedFile._bytes = 0
            for file in list(self._files):
                file._map.madvise(mmap.MADV_DONTNEED)
