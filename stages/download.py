"""Download one of the course's own sets and lay it out in the csv layout. Run by data/dvc.yaml, with the set's name.

In:   data/params.yaml, section <name>: where it comes from and the sha256 of its archive
Out:  data/raw/<name>: labels.csv (id, label, ...), train/, test/ where the set has one
Nothing of an archive is written but regular picture files, under their own base names, below train/ and test/, and not
more than 20 times its own size.
"""

import bz2
import gzip
import hashlib
import http.client
import io
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any, Self

import pandas as pd
from pydantic import Field

from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Section, load
from stages.runtime.stage import run, track

PARAMS = Path("data/params.yaml")
CHUNK = 1 << 20
MOST_HEADERS = 4 * CHUNK
Member = tuple[PurePosixPath, IO[bytes]]
BAD_ARCHIVE = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    NotImplementedError, ValueError, LookupError,
)  # fmt: skip
COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by first bytes
HEADERS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
MOST_TIMES, AT_LEAST, A_FILE = 20, 1 << 26, 1 << 12  # pictures hardly shrink; bytes; bytes that an empty file takes


class SourceParams(Section):
    """Either a Kaggle `competition` or a `url`."""

    archive: str
    competition: str | None
    url: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


def from_url(url: str, path: Path) -> None:
    """Stream to a file with progress. Raises StageError with the address and the reason."""
    if not url.startswith(("https://", "http://")):
        raise StageError(f"{url} is no web address")
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, path.open("wb") as file:  # noqa: S310 (checked above)
            n_chunks = -(-int(reply.headers.get("Content-Length") or 0) // CHUNK)
            for chunk in track(iter(lambda: reply.read(CHUNK), b""), n_chunks, "MiB"):
                file.write(chunk)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise StageError(f"{url} cannot be downloaded: {error}. Try again, or put its files below data/raw") from None


def from_kaggle(competition: str, folder: Path) -> None:
    """By the Kaggle command line, which has the user's token."""
    try:
        command = ["kaggle", "competitions", "download", "-c", competition, "-p", str(folder)]
        subprocess.run(command, check=True)  # noqa: S603 (no shell; the user's own kaggle)
    except FileNotFoundError:
        raise StageError(
            "the command `kaggle` is not there: `pip install kaggle`, then put its token in place"
        ) from None
    except subprocess.CalledProcessError as error:
        raise StageError(
            f"`{' '.join(command)}` failed ({error.returncode}): is the token in ~/.kaggle/kaggle.json, and have you "
            f"accepted the rules of the competition {competition} on its page?"
        ) from None


def check_sha256(path: Path, expected: str | None, name: str) -> None:
    """Where nobody has pinned the sum yet, say it, so that the user can."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is None:
        print(f"{path.name} has sha256 {found}: not pinned; set {name}.sha256 in {PARAMS} to it to have it checked")
    elif found != expected:
        raise StageError(f"{path.name} has sha256 {found}, expected {expected} ({name}.sha256 in {PARAMS})")


class Room:
    """What an archive may unpack to. Sizes are those that it names: neither zipfile nor tarfile reads more."""

    def __init__(self, archive: Path) -> None:
        self.name, self.left = archive.name, max(MOST_TIMES * archive.stat().st_size, AT_LEAST)

    def take(self, size: int) -> None:
        self.left -= size + A_FILE
        if size < 0 or self.left < 0:
            raise StageError(
                f"{self.name} unpacks to more than {MOST_TIMES} times its size, which no archive of pictures does: "
                "not unpacked"
            )


def members(path: Path, room: Room, within: bool = False) -> Iterator[Member]:
    """(name, open file) of every regular file in a zip or tar archive; zips in a zip are opened too, once.

    Raises:
        StageError: no archive, cut off, a name that leaves its folder, or too large.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    room.take(info.file_size)
                    if not info.is_dir():
                        yield from inner(checked(info.filename, path), archive.open(info), room, within)
        else:
            with Headers(path) as content, tarfile.open(fileobj=content, mode="r:", tarinfo=Entry) as archive_:
                for entry in archive_:
                    if entry.issparse():
                        raise StageError("a file of the archive has holes: not unpacked")
                    room.take(entry.size)
                    file = archive_.extractfile(entry) if entry.isfile() else None
                    if file is not None:
                        yield checked(entry.name, path), file
    except BAD_ARCHIVE as error:
        raise StageError(f"{path.name} cannot be unpacked: {error}") from None


class Headers(io.BufferedReader):
    """A tar archive, decompressed, that raises StageError where an entry's headers are long: `left` bytes of them."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(6)
        opened = next((open_ for magic, open_ in COMPRESSED.items() if start.startswith(magic)), open)
        self.left: int | None = None
        super().__init__(opened(path, "rb"))

    def read(self, size: int | None = -1, /) -> bytes:
        if self.left is not None and size is not None:
            self.left -= size
            if size < 0 or self.left < 0:
                raise StageError("the headers of a file of the archive are larger than 4 MiB: not unpacked")
        return super().read(size)


class Entry(tarfile.TarInfo):
    """tarfile reads some headers, and the list of holes of a sparse file, into memory before it names the entry: here
    they stay small."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Called for each header: for that of the file within that of its long name, too."""
        content = archive.fileobj
        if not isinstance(content, Headers) or content.left is not None:
            return super().fromtarfile(archive)
        content.left = MOST_HEADERS
        try:
            return super().fromtarfile(archive)
        finally:
            content.left = None

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type == tarfile.GNUTYPE_SPARSE or (entry.type in HEADERS and entry.size > CHUNK):
            raise StageError("a header of the archive is larger than 1 MiB, or a file has holes: not unpacked")
        return entry


def inner(name: PurePosixPath, file: IO[bytes], room: Room, within: bool) -> Iterator[Member]:
    if within or name.suffix != ".zip":
        yield name, file
        return
    with tempfile.NamedTemporaryFile(suffix=".zip") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        for member, content in members(Path(copy.name), room, within=True):
            yield PurePosixPath(name.stem) / member, content


def checked(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise StageError(f"{archive.name} holds {name!r}, which leaves its folder: not unpacked")
    return path


def lay_out(name: str, archive: Path, folder: Path) -> None:
    """Pictures into train/ and test/, labels.csv beside them. Raises StageError, also where the content is damaged."""
    try:
        _lay_out(name, archive, folder)
    except BAD_ARCHIVE as error:
        raise StageError(f"{archive.name} cannot be unpacked: {error}") from None


def _lay_out(name: str, archive: Path, folder: Path) -> None:
    (folder / "train").mkdir(parents=True)
    rows: list[dict[str, str]] = []
    for path, file in track(members(archive, Room(archive)), 0, "files"):
        if path.name == "labels.csv" and not (folder / "labels.csv").exists():
            with (folder / "labels.csv").open("wb") as copy:
                shutil.copyfileobj(file, copy)
        elif path.suffix.lower() in (".jpg", ".jpeg", ".png") and not path.name.startswith("."):
            part = "test" if any(parent.startswith("test") for parent in path.parts[:-1]) else "train"
            (folder / part).mkdir(exist_ok=True)
            if (folder / part / path.name).exists():
                raise StageError(f"{archive.name} holds two pictures named {path.name} for {part}/")
            with (folder / part / path.name).open("wb") as copy:
                shutil.copyfileobj(file, copy)
            if part == "train":
                rows.append({"id": path.stem} | label_by_name(name, path.stem))
    if not rows:
        raise StageError(f"{archive.name} holds no pictures for train/")
    if name != "dog_breeds":
        pd.DataFrame(rows).sort_values("id").to_csv(folder / "labels.csv", index=False)
    elif not (folder / "labels.csv").exists():
        raise StageError(f"{archive.name} holds no labels.csv")


def label_by_name(name: str, stem: str) -> dict[str, str]:
    """dogs_vs_cats: `cat.123`; oxford_pets: `Abyssinian_12`, where a capital says cat."""
    if name == "dogs_vs_cats":
        return {"label": stem.split(".")[0]}
    if name == "oxford_pets":
        return {"label": stem.rsplit("_", 1)[0].lower(), "species": "cat" if stem[0].isupper() else "dog"}
    return {}


def main() -> None:
    name = sys.argv[1]
    source = load(name, SourceParams, PARAMS)
    raw = stage_folder("raw")
    with outputs(raw / name) as staging, tempfile.TemporaryDirectory(dir=raw, prefix=".", suffix=".tmp") as download:
        archive = Path(download) / source.archive
        if source.url is not None:
            from_url(source.url, archive)
        elif source.competition is not None:
            from_kaggle(source.competition, Path(download))
        if not archive.is_file():
            raise StageError(f"no {source.archive} came from {source.url or source.competition}")
        check_sha256(archive, source.sha256, name)
        lay_out(name, archive, staging)


if __name__ == "__main__":
    run(main, with_arguments=True)
