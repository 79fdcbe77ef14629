"""A packed store: a few Arrow files with one value per picture, found by the sha256 of the picture.

The first bits of a picture's sha256 name its shard; rows are sorted by sha256. So an added picture rewrites one shard,
and two pictures with equal bytes share one row. The index takes 48 bytes of memory per picture; values stay on disk.
Columns: `sha256` (32 bytes), `value` (binary, or a fixed-size list of float32).
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from stages.runtime.errors import StageError
from stages.store.random_access import RandomAccessFile

Digests = npt.NDArray[np.uint64]
MAX_BYTES = 2**31 - 1  # of the values of a shard: Arrow counts them in 32 bits
HOW_TO_REPAIR = "delete this file, then run `dvc checkout` to restore it, or `dvc repro` to compute it again"
ITEMS_PER_SHARD = 1000  # on average, at most: the number of shards is a power of two, so that it seldom changes


def shard_bits(n_items: int) -> int:
    """Returns how many leading bits of the sha256 name the shard."""
    return max(0, (max(n_items, 1) - 1) // ITEMS_PER_SHARD).bit_length()


def shards_of(sha256s: Iterable[str]) -> list[list[str]]:
    """Returns distinct hex digests, grouped by shard and sorted within each shard."""
    unique = sorted(set(sha256s))
    bits = shard_bits(len(unique))
    groups: list[list[str]] = [[] for _ in range(1 << bits)]
    for sha in unique:
        groups[int(sha[:8], 16) >> (32 - bits)].append(sha)
    return groups


def write_shards(
    folder: Path,
    sha256s: Iterable[str],
    value_type: pa.DataType,
    make: Callable[[list[str]], Iterable[bytes]],
) -> None:
    """Writes shard by shard the values that `make` returns for the digests of a shard, in the same order.

    Memory holds one shard at a time.

    `make` returns a float32 list as bytes. Raises StageError if a shard exceeds 2 GiB, Arrow's limit.
    """
    folder.mkdir(parents=True)
    groups = shards_of(sha256s)
    schema = pa.schema([("sha256", pa.binary(32)), ("value", value_type)])
    for number, shas in enumerate(groups):
        values = list(make(shas))
        if len(values) != len(shas):
            raise RuntimeError(f"{folder}: {len(values)} values for {len(shas)} pictures")
        table = pa.table([_array([bytes.fromhex(s) for s in shas], pa.binary(32)), _array(values, value_type)], schema)
        path = folder / f"{number:05d}-of-{len(groups):05d}.arrow"
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_table(table, max_chunksize=max(len(shas), 1))


def _array(values: list[bytes], kind: pa.DataType) -> pa.Array:
    """Returns an Arrow array, built without pa.array, because pa.array imports pandas, which takes half a second."""
    data = pa.py_buffer(b"".join(values))
    if pa.types.is_fixed_size_list(kind):
        n = len(values) * kind.list_size
        if 4 * n != data.size:  # from_buffers does not check the size
            raise RuntimeError(f"{len(values)} vectors of {kind.list_size} in {data.size} bytes")
        flat = pa.Array.from_buffers(kind.value_type, n, [None, data])
        return pa.Array.from_buffers(kind, len(values), [None], children=[flat])
    if pa.types.is_fixed_size_binary(kind):
        return pa.Array.from_buffers(kind, len(values), [None, data])
    if data.size > MAX_BYTES:
        raise StageError(
            f"{len(values)} pictures take {data.size:,} bytes, and a shard holds {MAX_BYTES:,}: lower resize.size_px "
            "or resize.jpeg_quality"
        )
    ends = np.cumsum([0, *map(len, values)]).astype(np.int32)
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(ends), data])


class Shards:
    """Read-only view of a folder of shards."""

    def __init__(self, folder: Path) -> None:
        paths = sorted(folder.glob("*.arrow"))
        if not paths:
            raise FileNotFoundError(f"{folder} holds no shards")
        self._paths, self._bits = paths, len(paths).bit_length() - 1
        self._files = [RandomAccessFile(path) for path in paths]
        opened = [_read_index(file, path) for file, path in zip(self._files, paths, strict=True)]
        self._digests = [digests for digests, _, _ in opened]
        self._first_bits = [digests[:, 0].astype(np.uint64) for digests in self._digests]
        self._starts = [starts for _, starts, _ in opened]
        self.width = opened[0][2]
        """The length of the vectors in a vector store, else 0."""

    def __len__(self) -> int:
        return sum(map(len, self._first_bits))

    def sha256s(self) -> Iterator[str]:
        """Returns every hex digest, in ascending order."""
        return (digest.tobytes().hex() for digests in self._digests for digest in digests)

    def locate(self, sha256: str) -> tuple[int, int]:
        """Returns (shard, row) of a hex digest. Raises KeyError if it is not stored."""
        shard = int(sha256[:8], 16) >> (32 - self._bits)
        row = int(np.searchsorted(self._first_bits[shard], np.uint64(int(sha256[:16], 16))))
        digests = self._digests[shard]
        if row >= len(digests) or digests[row].tobytes().hex() != sha256:
            raise KeyError(sha256)
        return shard, row

    def blob(self, sha256: str) -> bytes:
        """Returns the value of a picture in a binary store."""
        return self._read(*self.locate(sha256))

    def vectors(self, shard: int, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Returns rows of one shard of a vector store, float32 (n, width)."""
        found = b"".join(self._read(shard, int(row)) for row in rows)
        return np.frombuffer(found, np.float32).reshape(-1, self.width)

    def _read(self, shard: int, row: int) -> bytes:
        start, end = self._starts[shard][row : row + 2].tolist()
        found = self._files[shard].read(start, end - start)
        if len(found) < end - start:
            raise StageError(f"{self._paths[shard]} was cut off: {HOW_TO_REPAIR}")
        return found


def _read_index(file: RandomAccessFile, path: Path) -> tuple[Digests, npt.NDArray[np.int64], int]:
    """Returns digests as big-endian numbers (n, 4), offsets of the values and the end of the last, vector width or 0.

    The file is mapped into memory only during this call. Raises StageError.
    """
    try:
        mapped = pa.py_buffer(file.as_mmap())
        arrow = pa.ipc.open_file(mapped)
    except (ValueError, pa.ArrowInvalid) as error:
        raise StageError(f"{path} is not a complete file of a packed store: {HOW_TO_REPAIR}") from error
    kind = arrow.schema.field("value").type
    is_vector = pa.types.is_fixed_size_list(kind)
    width = kind.list_size if is_vector else 0
    if not arrow.num_record_batches:
        return np.empty((0, 4), ">u8"), np.zeros(1, np.int64), width
    digests, values = arrow.get_batch(0).columns
    n = len(digests)
    *_, offsets, data = values.buffers()
    ends = np.arange(n + 1) * 4 * width if is_vector else np.frombuffer(offsets, np.int32)[: n + 1].astype(np.int64)
    first = data.address - mapped.address if data is not None else 0
    return np.frombuffer(digests.buffers()[1], ">u8")[: 4 * n].reshape(n, 4).copy(), first + ends, width
