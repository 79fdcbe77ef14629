"""Packed store: what is written is found, and one more picture rewrites one shard."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from stages.runtime.errors import StageError
from stages.store import shards as shards_module
from stages.store.shards import ITEMS_PER_SHARD, Shards, shard_bits, write_shards


def digests(n: int) -> list[str]:
    return [hashlib.sha256(str(i).encode()).hexdigest() for i in range(n)]


def write(folder: Path, shas: list[str]) -> Path:
    write_shards(folder, shas, pa.binary(), lambda part: [sha.encode() for sha in part])
    return folder


def test_every_item_is_found_and_others_are_not(tmp_path: Path) -> None:
    shas = digests(3 * ITEMS_PER_SHARD)
    shards = Shards(write(tmp_path / "s", shas))
    assert len(list((tmp_path / "s").iterdir())) == 4
    assert all(bytes(shards.blob(sha)) == sha.encode() for sha in shas)
    assert list(shards.sha256s()) == sorted(shas)
    with pytest.raises(KeyError):
        shards.blob("0" * 64)


def test_equal_pictures_share_a_row_and_order_does_not_matter(tmp_path: Path) -> None:
    shas = digests(20)
    a, b = write(tmp_path / "a", shas + shas[:5]), write(tmp_path / "b", shas[::-1])
    assert len(Shards(a)) == 20
    assert [p.read_bytes() for p in sorted(a.iterdir())] == [p.read_bytes() for p in sorted(b.iterdir())]


def test_one_more_picture_rewrites_one_shard(tmp_path: Path) -> None:
    shas = digests(5000)
    before, after = write(tmp_path / "a", shas[:-1]), write(tmp_path / "b", shas)
    changed = [p.name for p in sorted(after.iterdir()) if p.read_bytes() != (before / p.name).read_bytes()]
    assert len(changed) == 1


def test_count_of_shards_is_a_power_of_two() -> None:
    assert [1 << shard_bits(n) for n in (0, 1, 1000, 1001, 2000, 2624, 100_000)] == [1, 1, 1, 2, 2, 4, 128]


def test_values_are_arrows_own(tmp_path: Path) -> None:
    shas = digests(7)
    write_shards(tmp_path / "b", shas, pa.binary(), lambda part: [sha[:i].encode() for i, sha in enumerate(part)])
    table = pa.ipc.open_file(tmp_path / "b/00000-of-00001.arrow").read_all()
    table.validate(full=True)
    assert table["sha256"].to_pylist() == [bytes.fromhex(sha) for sha in sorted(shas)]
    assert table["value"].to_pylist() == [sha[:i].encode() for i, sha in enumerate(sorted(shas))]


def test_more_than_a_shard_holds_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards_module, "MAX_BYTES", 639)
    write(tmp_path / "s", digests(9))
    with pytest.raises(StageError, match="10 pictures take 640 bytes, and a shard holds 639: lower resize.size_px"):
        write(tmp_path / "t", digests(10))


def test_vectors_of_another_width_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="3 vectors of 3 in 24 bytes"):
        write_shards(tmp_path / "v", digests(3), pa.list_(pa.float32(), 3), lambda part: [bytes(8)] * len(part))


def test_vectors_are_rows_in_place(tmp_path: Path) -> None:
    shas = digests(2500)
    value = {sha: np.full(3, i, np.float32) for i, sha in enumerate(shas)}
    write_shards(tmp_path / "v", shas, pa.list_(pa.float32(), 3), lambda part: [value[sha].tobytes() for sha in part])
    shards = Shards(tmp_path / "v")
    assert shards.width == 3
    for sha in shas[::100]:
        shard, row = shards.locate(sha)
        np.testing.assert_array_equal(shards.vectors(shard, np.array([row]))[0], value[sha])


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    shas = digests(10)
    (path,) = write(tmp_path / "s", shas).iterdir()
    whole, shards = path.read_bytes(), Shards(tmp_path / "s")
    path.write_bytes(whole[:100])
    with pytest.raises(StageError, match="00000-of-00001.arrow was cut off: delete this file, then run `dvc checkout`"):
        shards.blob(shas[-1])
    for bad in (b"", b"garbage", whole[:-20]):
        path.write_bytes(bad)
        with pytest.raises(StageError, match="is not a complete file of a packed store: delete this file"):
            Shards(tmp_path / "s")


def test_a_shard_that_is_replaced_meanwhile_is_read_as_it_was(tmp_path: Path) -> None:
    shas = digests(10)
    (path,) = write(tmp_path / "s", shas).iterdir()
    shards = Shards(tmp_path / "s")
    (other,) = write(tmp_path / "t", digests(12)).iterdir()
    other.replace(path)
    assert all(shards.blob(sha) == sha.encode() for sha in shas)


def test_values_of_no_bytes(tmp_path: Path) -> None:
    shas = digests(3)
    write_shards(tmp_path / "s", shas, pa.binary(), lambda part: [b""] * len(part))
    assert [Shards(tmp_path / "s").blob(sha) for sha in shas] == [b""] * 3
