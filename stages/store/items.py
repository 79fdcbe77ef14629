"""Item store: a cache of values computed per picture, outside DVC's outputs, so that a rerun computes only new ones.

DVC deletes the outputs of a stage before the stage runs (treeverse/dvc#331), so the store is not an output. It lies in
.unfreeze/items or below $UNFREEZE_HOME, and may be deleted at any time. A collection is a folder of values that the
same code computed with the same params. It consists of segments: files of some thousand values each, which are written
under a temporary name, renamed and never changed. So processes share a store without locks, and a killed process leaves
nothing that another process would read.
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
ComputeValues = Callable[[Sequence[str]], Iterable[bytes]]  # returns one value per sha256, in the same order
VALUES_PER_SEGMENT = 2048
STALE_SECONDS = 3600
MAX_UNSAVED_SECONDS = 60
SMALL_SEGMENT, MAX_SMALL_SEGMENTS = VALUES_PER_SEGMENT // 4, 16


class ItemsParams(Section):
    """`max_gib`: the maximum size of all collections together; 0 turns the store off.

    Least recently used segments are deleted first.
    """

    max_gib: Annotated[float, Field(ge=0, le=1_000_000)]


def store_folder() -> Path:
    return state_dir() / "items"


def chunks(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """Splits into parts that each fit into one segment."""
    return (values[start : start + VALUES_PER_SEGMENT] for start in range(0, len(values), VALUES_PER_SEGMENT))


class Items:
    """A collection, named `name`; `key` holds everything that its values depend on, except the picture itself."""

    def __init__(self, name: str, key: Mapping[str, Any], params: ItemsParams) -> None:
        key_json = json.dumps({"name": name, **key}, indent=2, sort_keys=True, default=str)
        self.folder = store_folder() / f"{name}-{hashlib.sha256(key_json.encode()).hexdigest()[:16]}"
        self.max_bytes = int(params.max_gib * 2**30)
        self.segments: list[Segment] = []
        self.n_computed = 0
        if self.max_bytes:
            with self._storage_errors():
                make_folder(self.folder)
                (self.folder / "about.json").write_text(key_json + "\n", encoding="utf-8")
            for path in _glob(self.folder, "*.seg"):
                self._open(path)
        self._index_is_outdated = True

    @contextmanager
    def _storage_errors(self) -> Iterator[None]:
        """Turns an OSError into a StageError. Ignores that another process deleted the folder meanwhile."""
        try:
            yield
        except FileNotFoundError:
            return
        except OSError as error:
            raise StageError(
                f"computed values cannot be stored in {self.folder}: {error.strerror}; make room there, set "
                "UNFREEZE_HOME to another folder, or set items.max_gib to 0"
            ) from error

    def _open(self, path: Path, used: bool = False) -> None:
        try:
            segment = Segment(path)
        except OSError:  # another process deleted the file, or too many files are open: the file is not damaged
            return
        except ValueError:  # the file is damaged
            path.unlink(missing_ok=True)
            return
        segment.used = used
        self.segments.append(segment)
        self._index_is_outdated = True

    def _build_index(self) -> None:
        """Builds arrays with one entry per stored value, sorted by the first 64 bits of the sha256."""
        tables = [segment.table["sha256"] for segment in self.segments]
        all_digests = np.concatenate([np.empty((0, 4), ">u8"), *tables])
        order = np.argsort(all_digests[:, 0], kind="stable")
        self._digests = all_digests[order]
        self._first_bits = self._digests[:, 0].astype(np.uint64)
        self._segment_numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])[order]
        rows = [np.arange(len(table)) for table in tables]
        self._rows_in_segment = np.concatenate([np.empty(0, np.int64), *rows])[order]
        self._index_is_outdated = False

    def _find(self, sha256s: Sequence[str]) -> npt.NDArray[np.int64]:
        """Returns positions in the index, int64 (n,); -1 for values that are not stored."""
        if self._index_is_outdated:
            self._build_index()
        wanted = digests(sha256s)
        if not len(self._first_bits):
            return np.full(len(wanted), -1)
        position = np.searchsorted(self._first_bits, wanted[:, 0].astype(np.uint64))
        position = position.clip(max=len(self._first_bits) - 1)
        return np.where((self._digests[position] == wanted).all(axis=1), position, -1)

    def missing(self, sha256s: Iterable[str]) -> list[str]:
        """Returns the digests without a stored value, each once, in the given order."""
        unique = list(dict.fromkeys(sha256s))
        return [sha for sha, position in zip(unique, self._find(unique), strict=True) if position < 0]

    def get(self, sha256s: Sequence[str]) -> list[bytes | None]:
        """Returns the values in the given order; None for a value that is not stored, or damaged.

        Deletes damaged values from the store.
        """
        values: list[bytes | None] = []
        damaged = set[int]()
        for position in self._find(sha256s):
            value = None
            if position >= 0:
                segment = self.segments[self._segment_numbers[position]]
                value = segment.value(self._rows_in_segment[position])
                segment.used = True
                if value is None:
                    damaged.add(int(self._segment_numbers[position]))
            values.append(value)
        if damaged:
            self._rewrite([self.segments[number] for number in damaged])
        return values

    def put(self, sha256s: Sequence[str], values: Sequence[bytes]) -> None:
        """Stores the values of pictures that were `missing`. Raises StageError."""
        self.n_computed += len(sha256s)
        if self.max_bytes and sha256s:
            with self._storage_errors():
                try:
                    path = write_segment(self.folder, sha256s, values)
                except FileNotFoundError:  # another process deleted the store at this moment: try again
                    path = write_segment(self.folder, sha256s, values)
                self._open(path, used=True)

    def _rewrite(self, old: Sequence[Segment]) -> None:
        """Writes the undamaged values of `old` segments to new segments, each once, and deletes the old segments."""
        copies: dict[str, list[tuple[Segment, int]]] = {}
        for segment in old:
            for row, digest in enumerate(segment.table["sha256"]):
                copies.setdefault(digest.tobytes().hex(), []).append((segment, row))
        self.segments = [segment for segment in self.segments if segment not in old]
        self._index_is_outdated = True
        with self._storage_errors():
            for part in chunks(list(copies.items())):
                read = ((sha, segment.value(row)) for sha, stored in part for segment, row in stored)
                undamaged = {sha: value for sha, value in read if value is not None}
                if undamaged:
                    self._open(write_segment(self.folder, list(undamaged), list(undamaged.values())))
            for segment in old:
                segment.path.unlink(missing_ok=True)

    def mark_used(self) -> None:
        """Updates the modification time of used segments, because `trim` deletes the oldest segments first."""
        for segment in self.segments:
            if segment.used:
                with self._storage_errors():
                    os.utime(segment.path)

    def close(self) -> None:
        """Merges small segments, marks used segments as newest, and trims the store to `max_gib`."""
        if not self.max_bytes:
            return
        small = [segment for segment in self.segments if len(segment.table) < SMALL_SEGMENT]
        if len(small) > MAX_SMALL_SEGMENTS:
            self._rewrite(small)
        self.mark_used()
        deleted = set[Path]()
        with self._storage_errors():
            deleted = trim(self.max_bytes)
        if lost := [segment for segment in self.segments if segment.used and segment.path in deleted]:
            n = sum(len(segment.table) for segment in lost)
            print(f"items.max_gib is {self.max_bytes / 2**30:g}: too small to keep {n:,} values that this run used")


def _glob(folder: Path, pattern: str) -> list[Path]:
    """Returns the sorted paths; none if another process deletes the folder meanwhile."""
    try:
        return sorted(folder.glob(pattern))
    except FileNotFoundError:
        return []


def trim(max_bytes: int) -> set[Path]:
    """Deletes least recently used segments until the store has at most `max_bytes`. Returns the deleted paths."""
    segments, deleted = [], set[Path]()
    for path in [*_glob(store_folder(), "*/*.seg"), *_glob(store_folder(), "*/*.tmp")]:
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue
        if path.suffix == ".seg":
            segments.append((stat.st_mtime, stat.st_size, path))
        elif stat.st_mtime < time.time() - STALE_SECONDS:  # the process that wrote the file was killed
            path.unlink(missing_ok=True)
    total = sum(size for _, size, _ in segments)
    for _, size, path in sorted(segments):
        if total <= max_bytes:
            break
        path.unlink(missing_ok=True)
        deleted.add(path)
        total -= size
    return deleted


def make_missing(items: Items, sha256s: Iterable[str], make: ComputeValues) -> None:
    """Computes the missing values and stores them after a minute at most, so that a killed run can continue."""
    missing = items.missing(sha256s) if items.max_bytes else []
    values = track((value for part in chunks(missing) for value in make(part)), len(missing), "pictures")
    unsaved: list[bytes] = []
    n_saved, last_save = 0, time.monotonic()

    def save() -> None:
        nonlocal n_saved, last_save
        items.put(missing[n_saved : n_saved + len(unsaved)], unsaved)
        n_saved, last_save = n_saved + len(unsaved), time.monotonic()
        unsaved.clear()

    try:
        for value in values:
            unsaved.append(value)
            if len(unsaved) == VALUES_PER_SEGMENT or time.monotonic() - last_save > MAX_UNSAVED_SECONDS:
                save()
    finally:  # also after Stopped or an error
        save()


def load_or_make(items: Items, sha256s: Sequence[str], make: ComputeValues) -> list[bytes]:
    """Returns all values in the given order. Computes missing and damaged values."""
    values = dict(zip(sha256s, items.get(sha256s), strict=True))
    missing = [sha for sha, value in values.items() if value is None]
    if missing:
        computed = list(track(make(missing), len(missing), "pictures"))
        items.put(missing, computed)
        values |= dict(zip(missing, computed, strict=True))
    return [value for sha in sha256s if (value := values[sha]) is not None]
