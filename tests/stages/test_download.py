"""The course's own sets: archives of their shape, served on loopback or by a stand-in for the Kaggle command."""

import bz2
import functools
import gzip
import hashlib
import http.server
import io
import lzma
import os
import tarfile
import threading
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from stages import download
from stages.runtime.errors import StageError
from tests.conftest import ROOT, Project, draw_picture


@pytest.fixture
def picture(tmp_path: Path) -> bytes:
    draw_picture(tmp_path / "one.jpg", "red", 1)
    return (tmp_path / "one.jpg").read_bytes()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """(folder, its address on loopback)."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def zipped(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def tarred(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def breeds(picture: bytes) -> dict[str, bytes]:
    return {
        "labels.csv": b"id,breed\naa,boston_bull\nbb,dingo\n",
        "sample_submission.csv": b"id\n",
        "train/aa.jpg": picture,
        "train/bb.jpg": picture,
        "test/cc.jpg": picture,
    }


def set_params(project: Project, name: str, **changes: object) -> None:
    yaml, path = YAML(), project.folder / "data/params.yaml"
    content = yaml.load(path.read_text(encoding="utf-8"))
    content[name] |= changes
    with path.open("w", encoding="utf-8") as file:
        yaml.dump(content, file)


def test_dog_breeds_by_the_kaggle_command_then_the_recipes_first_stages(
    project: Project, tmp_path: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "dog-breed-identification.zip", breeds(picture))
    monkeypatch.setenv("KAGGLE_STAND_IN", str(tmp_path))
    monkeypatch.setenv("PATH", f"{ROOT / 'tests/stand_ins'}:{os.environ['PATH']}")
    project.params({"ingest.path": "data/raw/dog_breeds", "ingest.label_column": "breed", "split.valid_pct": 0.5})
    assert project.repro("ingest") == ["data/dvc.yaml:dog_breeds", "ingest"]  # upstream by itself
    table = pd.read_parquet(project.folder / "data/ingest/images.parquet")
    assert table[["id", "label", "part"]].to_numpy().tolist() == [
        ["cc", "", "test"], ["aa", "boston_bull", "train"], ["bb", "dingo", "train"],
    ]  # fmt: skip


def test_dogs_vs_cats_has_zips_in_a_zip(
    project: Project, tmp_path: Path, picture: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    zipped(tmp_path / "train.zip", {"train/cat.0.jpg": picture, "train/dog.1.jpg": picture})
    zipped(tmp_path / "test1.zip", {"test1/1.jpg": picture})
    parts = {name: (tmp_path / name).read_bytes() for name in ("train.zip", "test1.zip")}
    zipped(tmp_path / "dogs-vs-cats.zip", parts | {"sampleSubmission.csv": b"id,label\n"})
    monkeypatch.setenv("KAGGLE_STAND_IN", str(tmp_path))
    monkeypatch.setenv("PATH", f"{ROOT / 'tests/stand_ins'}:{os.environ['PATH']}")
    assert project.repro("data/dvc.yaml:dogs_vs_cats") == ["data/dvc.yaml:dogs_vs_cats"]
    folder = project.folder / "data/raw/dogs_vs_cats"
    assert sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.*")) == [
        "labels.csv", "test/1.jpg", "train/cat.0.jpg", "train/dog.1.jpg",
    ]  # fmt: skip
    assert (folder / "labels.csv").read_text(encoding="utf-8") == "id,label\ncat.0,cat\ndog.1,dog\n"


def test_oxford_pets_from_its_home_checked_by_sha256(
    project: Project, served: tuple[Path, str], picture: bytes
) -> None:
    folder, address = served
    tarred(folder / "images.tar.gz", {"images/Abyssinian_1.jpg": picture, "images/great_pyrenees_12.jpg": picture})
    sha256 = hashlib.sha256((folder / "images.tar.gz").read_bytes()).hexdigest()
    url = f"{address}/images.tar.gz"
    set_params(project, "oxford_pets", url=url)  # still the sum of the real archive
    failed = project.run("dvc", "repro", "data/dvc.yaml:oxford_pets", check=False)
    assert failed.returncode
    assert f"images.tar.gz has sha256 {sha256}, expected 67195c5e" in failed.stderr
    assert not list((project.folder / "data/raw").glob("**/*.jpg"))
    set_params(project, "oxford_pets", url=url, sha256=sha256)
    project.repro("data/dvc.yaml:oxford_pets")
    labels = (project.folder / "data/raw/oxford_pets/labels.csv").read_text(encoding="utf-8")
    assert labels == "id,label,species\nAbyssinian_1,abyssinian,cat\ngreat_pyrenees_12,great_pyrenees,dog\n"


def test_kaggle_refuses_or_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAGGLE_STAND_IN", str(tmp_path))
    monkeypatch.setenv("PATH", f"{ROOT / 'tests/stand_ins'}:/usr/bin:/bin")
    with pytest.raises(StageError, match="accepted the rules of the competition dogs-vs-cats"):
        download.from_kaggle("dogs-vs-cats", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(StageError, match="pip install kaggle"):
        download.from_kaggle("dogs-vs-cats", tmp_path)


def test_no_server_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"cannot be downloaded: .* Try again, or put its files into data/raw"):
        download.from_url("http://127.0.0.1:1/images.tar.gz", tmp_path / "x")


@pytest.mark.parametrize("name", ["../../evil.jpg", "/etc/evil.jpg", "images/../../evil.jpg"])
@pytest.mark.parametrize("make", [zipped, tarred])
def test_an_archive_cannot_write_outside_its_folder(tmp_path: Path, picture: bytes, make: object, name: str) -> None:
    make(tmp_path / "a", {name: picture})  # type: ignore[operator]
    with pytest.raises(StageError, match="which leads out of its folder"):
        download.lay_out("oxford_pets", tmp_path / "a", tmp_path / "out" / "deep")
    assert not list(tmp_path.rglob("evil.jpg"))


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path, picture: bytes) -> None:
    with tarfile.open(tmp_path / "a", "w:gz") as archive:
        link = tarfile.TarInfo("images/link_1.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        entry = tarfile.TarInfo("images/Bengal_1.jpg")
        entry.size = len(picture)
        archive.addfile(entry, io.BytesIO(picture))
    download.lay_out("oxford_pets", tmp_path / "a", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out/train").iterdir()] == ["Bengal_1.jpg"]


def noise(n: int) -> bytes:
    """Bytes that do not compress: a member is longer than what is read of an archive at once."""
    return np.random.default_rng(0).bytes(n)


def test_a_damaged_member(tmp_path: Path, picture: bytes) -> None:
    files = {
        name: content + noise(300_000) if "train" in name else content for name, content in breeds(picture).items()
    }
    zipped(tmp_path / "a", files)
    content = bytearray((tmp_path / "a").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(StageError, match="a cannot be unpacked: Bad CRC-32"):
        download.lay_out("dog_breeds", tmp_path / "a", tmp_path / "out")


def test_a_cut_off_archive(tmp_path: Path, picture: bytes) -> None:
    tarred(tmp_path / "whole", {f"images/Bengal_{n}.jpg": picture + noise(300_000) for n in range(4)})
    (tmp_path / "a").write_bytes((tmp_path / "whole").read_bytes()[:-200])
    with pytest.raises(StageError, match="a cannot be unpacked"):
        download.lay_out("oxford_pets", tmp_path / "a", tmp_path / "out")


def old_sparse() -> bytes:
    """A file with holes, as GNU tar writes it: by its type."""
    entry = tarfile.TarInfo("train/a.jpg")
    entry.type = tarfile.GNUTYPE_SPARSE
    return entry.tobuf(tarfile.GNU_FORMAT)


def pax_sparse(version: str, holes: bytes = b"1\n0\n3\nabc") -> bytes:
    """As newer ones do: by headers; in 1.0 the list of holes stands before the file's content."""
    lists = {
        "0.0": {"GNU.sparse.size": "3", "GNU.sparse.offset": "0", "GNU.sparse.numbytes": "3"},
        "0.1": {"GNU.sparse.size": "3", "GNU.sparse.map": "0,3"},
        "1.0": {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "3"},
    }
    entry = tarfile.TarInfo("train/a.jpg")
    entry.size = len(holes)
    entry.pax_headers = lists[version] | {"GNU.sparse.name": "train/a.jpg"}
    return entry.tobuf(tarfile.PAX_FORMAT) + holes + bytes(-len(holes) % tarfile.BLOCKSIZE)


@pytest.mark.parametrize("open_", [open, gzip.open, bz2.open, lzma.open])
@pytest.mark.parametrize("kind", ["old", "0.0", "0.1", "1.0"])
def test_a_file_with_holes_is_refused(tmp_path: Path, kind: str, open_: Any) -> None:
    path = tmp_path / "some.tar"
    with open_(path, "wb") as file:
        file.write((old_sparse() if kind == "old" else pax_sparse(kind)) + bytes(2 * tarfile.BLOCKSIZE))
    with pytest.raises(StageError, match="is sparse"):
        list(download.members(path, download.SizeLimit(path)))


def test_a_long_list_of_holes_is_not_read(tmp_path: Path) -> None:
    """32 MiB of it in 32 KiB: as much memory as somebody likes."""
    path = tmp_path / "some.tar.gz"
    with gzip.open(path, "wb") as file:
        file.write(pax_sparse("1.0", b"99999999\n" + b"1\n" * (16 << 20)))
    tracemalloc.start()
    with pytest.raises(StageError, match=r"headers of a file of the archive are larger than 4 MiB"):
        list(download.members(path, download.SizeLimit(path)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 100 << 20  # 2 million numbers of 4 MiB; without the limit 16 million


@pytest.mark.parametrize("open_", [open, gzip.open, bz2.open, lzma.open])
def test_an_ordinary_archive_is_read_however_it_is_compressed(tmp_path: Path, open_: Any) -> None:
    name, path = "train/" + "n" * 300 + ".jpg", tmp_path / "some.tar"  # a name that has a header of its own
    with open_(path, "wb") as file, tarfile.open(fileobj=file, mode="w", encoding="utf-8") as archive:
        for name_, content in ((name, b"abc"), ("empty", b""), ("long", bytes(5 << 20))):
            entry = tarfile.TarInfo(name_)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    found = {str(path): file.read() for path, file in download.members(path, download.SizeLimit(path))}
    assert found == {name: b"abc", "empty": b"", "long": bytes(5 << 20)}
