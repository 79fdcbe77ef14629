"""Item store: a cache of values computed per picture, outside DVC's outputs, so that a rerun computes only new ones.

DVC empties a stage's outputs before it runs (treeverse/dvc#331); the store lies in .unfreeze/items or below
$UNFREEZE_HOME, and may be deleted at any time. Each collection is a folder: values made by the same code with the same
params. It holds segments of some thousand values each, written under a temporary name, renamed and never changed:
processes share a store without locks, and a killed process leaves nothing that another would read.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stages.runtime.errors import StageError
from stages.runtime.params import Section
from stages.runtime.stage import track
from stages.runtime.state_dir import state_dir
from stages.store.segment import Segment, digests, make_folder, write_segment

T = TypeVar("T")
Make = Callable[[Sequence[str]], Iterable[bytes]]
VALUES_PER_SEGMENT = 2048
STALE_SECONDS = 3600
MAX_UNSAVED_SECONDS = 60
SMALL_SEGMENT, MAX_SMALL_SEGMENTS = VALUES_PER_SEGMENT // 4, 16


class ItemsParams(Section):
    """`max_gib`: the size of all collections together; least recently used segments are deleted first. 0: no store."""

    max_gib: Annotated[float, Field(ge=0, le=1_000_000)]


def store_folder() -> Path:
    return state_dir() / "items"


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Split into parts that each fit into one segment."""
    return (values[start : start + VALUES_PER_SEGMENT] for start in range(0, len(values), VALUES_PER_SEGMENT))


class Items:
    """A collection, named `name`; `key` holds everything that its values depend on, except the picture itself."""

    def __init__(self, name: str, key: Mapping[str, Any], params: ItemsParams) -> None:
        about = json.dumps({"name": name, **key}, indent=2, sort_keys=True, default=str)
        self.folder = store_folder() / f"{name}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
        self.max_bytes = int(params.max_gib * 2**30)
        self.segments: list[Segment] = []
        self.made = 0
        if self.max_bytes:
            with self._storing():
                make_folder(self.folder)
                (self.folder / "about.json").write_text(about + "\n", encoding="utf-8")
            for path in _glob(self.folder, "*.seg"):
                self._open(path)
        self._index_is_old = True

    @contextmanager
    def _storing(self) -> Iterator[None]:
        """Raises StageError if there is no room or no permission. Ignores that the folder was deleted meanwhile."""
        try:
            yield
        except FileNotFoundError:
            return
        except OSError as error:
            raise StageError(
                f"what was made cannot be kept in {self.folder}: {error.strerror}; make room, set UNFREEZE_HOME to "
                "another folder, or items.max_gib to 0"
            ) from error

    def _open(self, path: Path, used: bool = False) -> None:
        try:
            segment = Segment(path)
        except OSError:  # another process merged or trimmed it, or too many files are open: the file is not to blame
            return
        except ValueError:
            path.unlink(missing_ok=True)
            return
        segment.used = used
        self.segments.append(segment)
        self._index_is_old = True

    def _index(self) -> None:
        tables = [segment.table["sha256"] for segment in self.segments]
        all_digests = np.concatenate([np.empty((0, 4), ">u8"), *tables])
        order = np.argsort(all_digests[:, 0], kind="stable")
        self._digests = all_digests[order]
        self._keys = self._digests[:, 0].astype(np.uint64)
        self._segment = np.repeat(np.arange(len(tables)), [len(table) for table in tables])[order]
        self._row = np.concatenate([np.empty(0, np.int64), *(np.arange(len(table)) for table in tables)])[order]
        self._index_is_old = False

    def _find(self, sha256s: Sequence[str]) -> npt.NDArray[np.int64]:
        """(n,): positions in the index, -1 for values that are not stored."""
        if self._index_is_old:
            self._index()
        wanted = digests(sha256s)
        if not len(self._keys):
            return np.full(len(wanted), -1)
        position = np.searchsorted(self._keys, wanted[:, 0].astype(np.uint64)).clip(max=len(self._keys) - 1)
        return np.where((self._digests[position] == wanted).all(axis=1), position, -1)

    def missing(self, sha256s: Iterable[str]) -> list[str]:
        """Digests without a stored value, each once, in the given order."""
        unique = list(dict.fromkeys(sha256s))
        return [sha for sha, position in zip(unique, self._find(unique), strict=True) if position < 0]

    def get(self, sha256s: Sequence[str]) -> list[bytes | None]:
        """Values in the given order; None if a value is not stored, or damaged: it is then dropped from the store."""
        found: list[bytes | None] = []
        damaged = set[int]()
        for position in self._find(sha256s):
            value = None
            if position >= 0:
                segment = self.segments[self._segment[position]]
                value = segment.value(self._row[position])
                segment.used = True
                if value is None:
                    damaged.add(int(self._segment[position]))
            found.append(value)
        if damaged:
            self._rewrite([self.segments[number] for number in damaged])
        return found

    def put(self, sha256s: Sequence[str], values: Sequence[bytes]) -> None:
        """Store the values of pictures that were `missing`. Raises StageError."""
        self.made += len(sha256s)
        if self.max_bytes and sha256s:
            with self._storing():
                try:
                    path = write_segment(self.folder, sha256s, values)
                except FileNotFoundError:  # the store was deleted at the same moment
                    path = write_segment(self.folder, sha256s, values)
                self._open(path, used=True)

    def _rewrite(self, old: Sequence[Segment]) -> None:
        """Write the undamaged values of `old` to new segments, each once, and delete the old ones."""
        copies: dict[str, list[tuple[Segment, int]]] = {}
        for segment in old:
            for row, digest in enumerate(segment.table["sha256"]):
                copies.setdefault(digest.tobytes().hex(), []).append((segment, row))
        self.segments = [segment for segment in self.segments if segment not in old]
        self._index_is_old = True
        with self._storing():
            for part in chunks(list(copies.items())):
                read = ((sha, segment.value(row)) for sha, stored in part for segment, row in stored)
                undamaged = {sha: value for sha, value in read if value is not None}
                if undamaged:
                    self._open(write_segment(self.folder, list(undamaged), list(undamaged.values())))
            for segment in old:
                segment.path.unlink(missing_ok=True)

    def mark_used(self) -> None:
        """Update the modification time of used segments: `trim` deletes the oldest first."""
        for segment in self.segments:
            if segment.used:
                with self._storing():
                    os.utime(segment.path)

    def close(self) -> None:
        """Merge small segments, mark used ones as newest, and trim the store to `max_gib`."""
        if not self.max_bytes:
            return
        small = [segment for segment in self.segments if len(segment.table) < SMALL_SEGMENT]
        if len(small) > MAX_SMALL_SEGMENTS:
            self._rewrite(small)
        self.mark_used()
        deleted = set[Path]()
        with self._storing():
            deleted = trim(self.max_bytes)
        if lost := [segment for segment in self.segments if segment.used and segment.path in deleted]:
            n = sum(len(segment.table) for segment in lost)
            print(
                f"items.max_gib is {self.max_bytes / 2**30:g}: too small to remember {n:,} results that were just used"
            )


def _glob(folder: Path, pattern: str) -> list[Path]:
    """Sorted paths; none if the folder is deleted meanwhile."""
    try:
        return sorted(folder.glob(pattern))
    except FileNotFoundError:
        return []


def trim(max_bytes: int) -> set[Path]:
    """Delete least recently used segments until the store has at most `max_bytes`; returns the deleted paths."""
    found, deleted = [], set[Path]()
    for path in [*_glob(store_folder(), "*/*.seg"), *_glob(store_folder(), "*/*.tmp")]:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.suffix == ".seg":
            found.append((stat.st_mtime, stat.st_size, path))
        elif stat.st_mtime < time.time() - STALE_SECONDS:  # its process was killed
            path.unlink(missing_ok=True)
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        deleted.add(path)
        total -= size
    return deleted


def make_missing(items: Items, sha256s: Iterable[str], make: Make) -> None:
    """Make the missing values and store them as they come, so that a killed run resumes where it stopped."""
    misses = items.missing(sha256s) if items.max_bytes else []
    made = track((value for part in chunks(misses) for value in make(part)), len(misses), "pictures")
    done: list[bytes] = []
    kept, since = 0, time.monotonic()

    def keep() -> None:
        nonlocal kept, since
        items.put(misses[kept : kept + len(done)], done)
        kept, since = kept + len(done), time.monotonic()
        done.clear()

    try:
        for value in made:
            done.append(value)
            if len(done) == VALUES_PER_SEGMENT or time.monotonic() - since > MAX_UNSAVED_SECONDS:
                keep()
    finally:  # also after Stopped or an error
        keep()


def load_or_make(items: Items, sha256s: Sequence[str], make: Make) -> list[bytes]:
    """All values in the given order; missing and damaged ones are made again."""
    found = dict(zip(sha256s, items.get(sha256s), strict=True))
    lost = [sha for sha, value in found.items() if value is None]
    if lost:
        again = list(track(make(lost), len(lost), "pictures"))
        items.put(lost, again)
        found |= dict(zip(lost, again, strict=True))
    return [value for sha in sha256s if (value := found[sha]) is not None]
