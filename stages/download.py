"""download: fetch one of the fast.ai course's data sets into the csv layout.

data/dvc.yaml runs this stage with the name of the data set.

In:   data/params.yaml, section <name>: the source and sha256 of the archive
Out:  data/raw/<name>: labels.csv (id, label, ...), train/, test/ if the set has one
Only regular picture files of an archive are written, under their base names, below train/ and test/. An archive may
unpack to at most 20 times its size.
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
CHUNK = 1 << 20  # bytes
MAX_HEADER_BYTES = 4 * CHUNK
Member = tuple[PurePosixPath, IO[bytes]]
ARCHIVE_ERRORS = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError,
    NotImplementedError, ValueError, LookupError,
)  # fmt: skip
DECOMPRESSORS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}  # by first bytes
HEADER_TYPES = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip
MAX_RATIO = 20  # unpacked size / archive size; pictures hardly shrink in an archive
MIN_LIMIT = 1 << 26  # bytes that every archive may unpack to
BYTES_PER_FILE = 1 << 12  # counted in addition to the file's content: an empty file takes space too


class SourceParams(Section):
    """Either a Kaggle `competition` or a `url`."""

    archive: str
    competition: str | None
    url: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None


def from_url(url: str, path: Path) -> None:
    """Downloads `url` to a file and shows the progress. Raises StageError with the address and the reason."""
    if not url.startswith(("https://", "http://")):
        raise StageError(f"{url} is not a web address")
    try:
        with urllib.request.urlopen(url, timeout=60) as reply, path.open("wb") as file:  # noqa: S310 (checked above)
            n_chunks = -(-int(reply.headers.get("Content-Length") or 0) // CHUNK)
            for chunk in track(iter(lambda: reply.read(CHUNK), b""), n_chunks, "MiB"):
                file.write(chunk)
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise StageError(f"{url} cannot be downloaded: {error}. Try again, or put its files into data/raw") from None


def from_kaggle(competition: str, folder: Path) -> None:
    """Downloads with the command `kaggle`, which knows the user's token."""
    try:
        command = ["kaggle", "competitions", "download", "-c", competition, "-p", str(folder)]
        subprocess.run(command, check=True)  # noqa: S603 (no shell; the user's own kaggle)
    except FileNotFoundError:
        raise StageError("the command `kaggle` is not installed: `pip install kaggle`, then store its token") from None
    except subprocess.CalledProcessError as error:
        raise StageError(
            f"`{' '.join(command)}` failed ({error.returncode}): is the token in ~/.kaggle/kaggle.json, and have you "
            f"accepted the rules of the competition {competition} on its page?"
        ) from None


def check_sha256(path: Path, expected: str | None, name: str) -> None:
    """Raises StageError if the sha256 differs. Prints it if `expected` is None, so that the user can pin it."""
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, "sha256").hexdigest()
    if expected is None:
        print(f"{path.name} has sha256 {actual}: not pinned; set {name}.sha256 in {PARAMS} to this value to check it")
    elif actual != expected:
        raise StageError(f"{path.name} has sha256 {actual}, expected {expected} ({name}.sha256 in {PARAMS})")


class SizeLimit:
    """Counts down the bytes that an archive may still unpack to.

    Counts the sizes in the headers, because zipfile and tarfile unpack no more than these.
    """

    def __init__(self, archive: Path) -> None:
        self.name, self.left = archive.name, max(MAX_RATIO * archive.stat().st_size, MIN_LIMIT)

    def take(self, size: int) -> None:
        self.left -= size + BYTES_PER_FILE
        if size < 0 or self.left < 0:
            raise StageError(
                f"{self.name} unpacks to more than {MAX_RATIO} times its size, unlike any archive of pictures: "
                "not unpacked"
            )


def members(path: Path, limit: SizeLimit, is_inner: bool = False) -> Iterator[Member]:
    """Yields (name, open file) of every regular file in a zip or tar archive; also opens zips in a zip, one level deep.

    Raises:
        StageError: if the file is not an archive, is truncated or is too large, or if a name leads out of its folder.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for info in archive.infolist():
                    limit.take(info.file_size)
                    if not info.is_dir():
                        yield from with_inner_zip(
                            checked_path(info.filename, path), archive.open(info), limit, is_inner
                        )
        else:
            with (
                LimitedTar(path) as content,
                tarfile.open(fileobj=content, mode="r:", tarinfo=LimitedEntry, encoding="utf-8") as archive_,
            ):
                for entry in archive_:
                    if entry.issparse():
                        raise StageError("a file of the archive is sparse: not unpacked")
                    limit.take(entry.size)
                    file = archive_.extractfile(entry) if entry.isfile() else None
                    if file is not None:
                        yield checked_path(entry.name, path), file
    except ARCHIVE_ERRORS as error:
        raise StageError(f"{path.name} cannot be unpacked: {error}") from None


class LimitedTar(io.BufferedReader):
    """A decompressed tar archive. Raises StageError if an entry's headers exceed the `left` bytes allowed."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            start = file.read(6)
        opened = next((open_ for magic, open_ in DECOMPRESSORS.items() if start.startswith(magic)), open)
        self.left: int | None = None
        super().__init__(opened(path, "rb"))

    def read(self, size: int | None = -1, /) -> bytes:
        if self.left is not None and size is not None:
            self.left -= size
            if size < 0 or self.left < 0:
                raise StageError("the headers of a file of the archive are larger than 4 MiB: not unpacked")
        return super().read(size)


class LimitedEntry(tarfile.TarInfo):
    """Limits headers and a sparse file's list of holes: tarfile reads both into memory before it returns the entry."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """Reads the headers of one file. After a header with a long name, tarfile calls this again within the call."""
        content = archive.fileobj
        if not isinstance(content, LimitedTar) or content.left is not None:
            return super().fromtarfile(archive)
        content.left = MAX_HEADER_BYTES
        try:
            return super().fromtarfile(archive)
        finally:
            content.left = None

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        entry = super().frombuf(buf, encoding, errors)
        if entry.type == tarfile.GNUTYPE_SPARSE or (entry.type in HEADER_TYPES and entry.size > CHUNK):
            raise StageError("a header of the archive is larger than 1 MiB, or a file is sparse: not unpacked")
        return entry


def with_inner_zip(name: PurePosixPath, file: IO[bytes], limit: SizeLimit, is_inner: bool) -> Iterator[Member]:
    if is_inner or name.suffix != ".zip":
        yield name, file
        return
    with tempfile.NamedTemporaryFile(suffix=".zip") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        for member, content in members(Path(copy.name), limit, is_inner=True):
            yield PurePosixPath(name.stem) / member, content


def checked_path(name: str, archive: Path) -> PurePosixPath:
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise StageError(f"{archive.name} holds {name!r}, which leads out of its folder: not unpacked")
    return path


def lay_out(name: str, archive: Path, folder: Path) -> None:
    """Writes pictures into train/ and test/, and labels.csv beside them. Raises StageError, for damaged content too."""
    try:
        _lay_out(name, archive, folder)
    except ARCHIVE_ERRORS as error:
        raise StageError(f"{archive.name} cannot be unpacked: {error}") from None


def _lay_out(name: str, archive: Path, folder: Path) -> None:
    (folder / "train").mkdir(parents=True)
    rows: list[dict[str, str]] = []
    for path, file in track(members(archive, SizeLimit(archive)), 0, "files"):
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
    """Returns the labels in a file name: `cat.123` in dogs_vs_cats, `Abyssinian_12` in oxford_pets.

    In oxford_pets a name that begins with a capital letter is that of a cat.
    """
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
            raise StageError(f"there was no {source.archive} in the download from {source.url or source.competition}")
        check_sha256(archive, source.sha256, name)
        lay_out(name, archive, staging)


if __name__ == "__main__":
    run(main, with_arguments=True)
