"""The item store gives what was put; what is damaged, cut off or gone is made again, and nothing else is."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from stages.runtime.errors import StageError
from stages.store import items as module
from stages.store.items import Items, ItemsParams, load_or_make, make_missing, store_folder, trim
from stages.store.segment import write_segment

ROOM = ItemsParams(max_gib=1.0)
SHAS = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(5000)]


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNFREEZE_HOME", str(tmp_path))
    return store_folder()


def made_of(sha: str) -> bytes:
    """Of several lengths, also none."""
    return bytes.fromhex(sha) * (int(sha[0], 16) % 4)


class Maker:
    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, shas: Sequence[str]) -> Iterator[bytes]:
        self.made += shas
        return map(made_of, shas)


def use(shas: Sequence[str], key: str = "one", params: ItemsParams = ROOM) -> list[str]:
    """As a stage does; all values must be right. What had to be made."""
    items, maker = Items("test", {"key": key}, params), Maker()
    make_missing(items, shas, maker)
    assert load_or_make(items, shas, maker) == [made_of(sha) for sha in shas]
    items.close()
    assert items.n_computed == len(maker.made)
    return maker.made


def test_only_what_is_new_is_made(store: Path) -> None:
    assert use(SHAS[:3000]) == SHAS[:3000]
    assert use(SHAS[2000:]) == SHAS[3000:]
    assert use(SHAS[::-1]) == []
    assert len(list(store.glob("*/*.seg"))) == 3  # some thousand values a file
    assert use(SHAS[:10], key="other") == SHAS[:10]


def test_nothing_is_remembered_where_there_is_no_room_for_it(store: Path) -> None:
    none = ItemsParams(max_gib=0)
    assert use(SHAS[:10], params=none) == SHAS[:10]
    assert use(SHAS[:10], params=none) == SHAS[:10]
    assert not store.exists()


@pytest.mark.parametrize("place", [0.1, 0.5, 0.97, 0.9999])
def test_a_flipped_byte_is_found_and_mended(store: Path, place: float) -> None:
    use(SHAS[:500])
    (path,) = store.glob("*/*.seg")
    content = bytearray(path.read_bytes())
    content[int(len(content) * place)] ^= 0x10
    path.write_bytes(content)
    again = use(SHAS[:500])
    assert 1 <= len(again) <= 500
    if place < 0.5:  # among the values: one is lost, the others are kept
        assert len(again) == 1
    assert use(SHAS[:500]) == []


def test_the_only_value_of_a_file_is_damaged(store: Path) -> None:
    one = next(sha for sha in SHAS if made_of(sha))
    use([one])
    (path,) = store.glob("*/*.seg")
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert use([one]) == [one]
    assert len(list(store.glob("*/*.seg"))) == 1


@pytest.mark.parametrize("length", [0, 3, 1000, -1])
def test_a_file_that_is_cut_off_counts_for_nothing(store: Path, length: int) -> None:
    use(SHAS[:500])
    (path,) = store.glob("*/*.seg")
    path.write_bytes(path.read_bytes()[:length])
    assert use(SHAS[:500]) == SHAS[:500]
    assert use(SHAS[:500]) == []


def test_many_small_files_become_one(store: Path) -> None:
    for n in range(module.MAX_SMALL_SEGMENTS + 1):
        assert use(SHAS[: 5 * n + 5]) == SHAS[5 * n : 5 * n + 5]
    assert len(list(store.glob("*/*.seg"))) == 1
    assert use(SHAS[:85]) == []


def test_merging_keeps_the_whole_one_of_two_copies(store: Path) -> None:
    items = Items("test", {"key": "one"}, ROOM)
    for _ in range(module.MAX_SMALL_SEGMENTS + 1):
        items.put(SHAS[:10], [made_of(sha) for sha in SHAS[:10]])
    last = items.segments[-1].path
    last.write_bytes(b"xxx" + last.read_bytes()[3:])
    items.close()
    assert len(list(store.glob("*/*.seg"))) == 1
    assert use(SHAS[:10]) == []


def test_what_is_too_much_to_remember_is_said(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert use(SHAS[:100], params=ItemsParams(max_gib=1e-6)) == SHAS[:100]
    assert "too small to keep 100 values that this run used" in capsys.readouterr().out
    assert list(store.glob("*/*.seg")) == []


def test_what_was_used_longest_ago_goes_first(store: Path) -> None:
    for number, key in enumerate(("old", "older", "new")):
        use(SHAS[:1000], key)
        for path in store.glob("*/*.seg"):
            os.utime(path, (1000 * number, 1000 * number)) if path.stat().st_mtime > 1e6 else None
    assert use(SHAS[:1000], "old") == []  # its use makes it the newest
    size = sum(path.stat().st_size for path in store.glob("*/*.seg")) / 3
    module.trim(int(size * 2.5))
    assert use(SHAS[:1000], "old") == []
    assert use(SHAS[:1000], "new") == []
    assert use(SHAS[:1000], "older") == SHAS[:1000]


def test_it_may_be_deleted_while_it_is_used(store: Path) -> None:
    use(SHAS[:100])
    items, maker = Items("test", {"key": "one"}, ROOM), Maker()
    for path in store.glob("*/*"):
        path.unlink()
    assert load_or_make(items, SHAS[:100], maker) == [made_of(sha) for sha in SHAS[:100]]
    assert maker.made == []
    items.close()
    assert use(SHAS[:100]) == SHAS[:100]


def test_what_another_trims_away_as_it_is_written_is_made_again(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def written_and_gone(folder: Path, shas: Sequence[str], some: Sequence[bytes]) -> Path:
        path = write_segment(folder, shas, some)
        path.unlink()
        return path

    monkeypatch.setattr(module, "write_segment", written_and_gone)
    items, maker = Items("test", {"key": "one"}, ROOM), Maker()
    make_missing(items, SHAS[:10], maker)
    assert load_or_make(items, SHAS[:10], maker) == [made_of(sha) for sha in SHAS[:10]]
    assert maker.made == SHAS[:10] * 2


@pytest.mark.parametrize("n_before", [0, module.MAX_SMALL_SEGMENTS])
def test_a_full_disk_is_one_clear_line(store: Path, monkeypatch: pytest.MonkeyPatch, n_before: int) -> None:
    """At the first value, and where small files are merged."""
    for n in range(n_before):
        use(SHAS[: n + 1])

    def full(folder: Path, shas: Sequence[str], some: Sequence[bytes]) -> Path:
        if n_before and len(shas) == 1:
            return write_segment(folder, shas, some)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "write_segment", full)
    with pytest.raises(
        StageError, match="cannot be stored in .*: No space left on device; make room there, set UNFREEZE"
    ):
        use(SHAS[: n_before + 1])
    monkeypatch.undo()
    monkeypatch.setenv("UNFREEZE_HOME", str(store.parent))
    use(SHAS[: n_before + 1])
    assert use(SHAS[: n_before + 1]) == []


def test_a_store_that_cannot_be_made_is_one_clear_line(store: Path) -> None:
    store.parent.mkdir(exist_ok=True)
    store.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(StageError, match=r"cannot be stored in .*: \w.*; make room there, set UNFREEZE_HOME"):
        use(SHAS[:1])


PROGRAM = """
import sys
from tests.store.test_items import SHAS, use
for n in range(40):
    use(SHAS[: n * 50 : int(sys.argv[1])])
print("all right", flush=True)
"""


def start(step: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(step)], stdout=subprocess.PIPE, encoding="utf-8")


def test_two_processes_share_it() -> None:
    both = [start(2), start(3)]
    assert [process.communicate()[0] for process in both] == ["all right\n"] * 2
    assert use(SHAS[: 39 * 50 : 6]) == []


def test_a_process_that_is_killed_leaves_nothing_wrong(store: Path) -> None:
    for number in range(8):
        process = start(1)
        while not list(store.glob("*/*.seg")):
            time.sleep(0.01)
        time.sleep(0.05 * number)
        process.kill()
        process.communicate()
        use(SHAS[:2000])  # compares every value
        for path in store.glob("*/*.seg"):
            path.unlink()


def test_a_store_that_is_deleted_meanwhile_is_made_anew(store: Path) -> None:
    items = Items("test", {"key": "one"}, ROOM)
    items.put(SHAS[:5], [made_of(sha) for sha in SHAS[:5]])
    shutil.rmtree(store)
    items.put(SHAS[5:9], [made_of(sha) for sha in SHAS[5:9]])
    items.close()
    assert use(SHAS[5:9]) == []


def test_a_folder_deleted_between_two_looks_of_mkdir_is_made_again(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = Items("test", {"key": "one"}, ROOM)
    shutil.rmtree(store)
    mkdir, looked = os.mkdir, list[Path]()

    def deleted_meanwhile(path: Path, mode: int) -> None:
        if Path(path) == items.folder and not looked:
            looked.append(path)
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", deleted_meanwhile)
    assert load_or_make(items, SHAS[:5], Maker()) == [made_of(sha) for sha in SHAS[:5]]
    assert looked
    assert use(SHAS[:5]) == []


def test_a_store_that_leads_nowhere_is_an_error(store: Path) -> None:
    store.symlink_to(store.parent / "nowhere")
    with pytest.raises(StageError, match="cannot be stored in .*: File exists"):
        Items("test", {"key": "one"}, ROOM)


def test_what_another_process_is_writing_is_not_trimmed_away(store: Path) -> None:
    use(SHAS[:5])
    (folder,) = store.glob("*")
    (folder / "others.tmp").write_bytes(bytes(1000))
    trim(1)
    assert [path.name for path in folder.glob("*.*") if path.suffix in (".tmp", ".seg")] == ["others.tmp"]


def test_a_segment_that_cannot_be_opened_is_not_deleted(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(SHAS[:5])
    (path,) = store.glob("*/*.seg")
    (path.parent / "folder.seg").mkdir()

    def too_many(_: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("stages.store.items.Segment", too_many)
        assert Items("test", {"key": "one"}, ROOM).missing(SHAS[:5]) == SHAS[:5]
    assert path.exists()
    assert use(SHAS[:5]) == []
