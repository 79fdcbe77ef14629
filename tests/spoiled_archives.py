"""Zip and tar archives of pictures, spoiled: `archive(n)` gives the same bytes for the same number."""

import functools
import io
import random
import tarfile
import zipfile

from tests.spoiled import ANY, overwrite

NAMES = (
    "images/Bengal_1.jpg", "test/t.PNG", "labels.csv", "a/b/", "../x.jpg", "/x.jpg", "a/../../x.jpg", "..\\x.jpg",
    "C:\\x.jpg", "x.jpg\0.png", ".jpg", "..jpg", "x" * 300 + ".jpg", "a/" * 300 + "x.jpg", "$(touch x).jpg",
    "\udce9.jpg", "\n.jpg", "inner.zip", "images/Bengal_1.jpg", "-rf.jpg", "~/x.jpg", "train",
    "train/labels.csv", ".git/hooks/x.jpg",
)  # fmt: skip
KINDS = (tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.GNUTYPE_SPARSE)
HEADER, CHECKSUM = 512, slice(148, 156)  # of a tar's entry


def zipped(rng: random.Random, method: int, depth: int = 0) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("images/Abyssinian_1.jpg", rng.randbytes(300))
        for name in rng.sample(NAMES, rng.randrange(4)):
            content = zipped(rng, method, depth + 1) if name == "inner.zip" and depth < 3 else rng.randbytes(50)
            archive.writestr(zipfile.ZipInfo(name.encode(errors="replace").decode()), content, method)
    return buffer.getvalue()


def tarred(rng: random.Random, mode: str, kind: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for name in ["images/Abyssinian_1.jpg", *rng.sample(NAMES, rng.randrange(4))]:
            entry = tarfile.TarInfo(name.replace("\0", ""))
            entry.type, entry.linkname, entry.size, entry.mtime = rng.choice(KINDS), "/etc/passwd", 700, 0
            archive.addfile(entry, io.BytesIO(rng.randbytes(700)))
    return buffer.getvalue()


@functools.cache
def good_archives() -> list[bytes]:
    rng = random.Random(0)
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    zips = [zipped(rng, method) for method in methods for _ in range(8)]
    kinds = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)
    tars = [tarred(rng, mode, kind) for mode in ("w", "w", "w:gz", "w:xz", "w:bz2") for kind in kinds for _ in range(5)]
    return [*zips, *tars]


def in_tar(data: bytes, rng: random.Random) -> bytes:
    """An entry's header spoiled, its checksum right."""
    at = HEADER * rng.randrange(max(1, len(data) // HEADER))
    header = bytearray(rng.choice((overwrite, *ANY))(data[at : at + HEADER], rng)[:HEADER].ljust(HEADER, b"\0"))
    if rng.random() < 0.3:  # sizes are octal, or binary after a sign, and then negative too
        header[124:136] = rng.choice(
            (b"77777777777\0", b"\xff" * 12, b"\x80" + b"\0" * 3 + b"\xff" * 8, b"00000000000\0")
        )
    header[CHECKSUM] = b" " * 8
    header[CHECKSUM] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + HEADER :]


def archive(number: int) -> bytes:
    rng = random.Random(f"archive {number}")
    data = rng.choice(good_archives())
    for _ in range(rng.choice((0, 1, 1, 2, 4))):
        data = (in_tar if b"ustar" in data[:HEADER] and rng.random() < 0.8 else rng.choice(ANY))(data, rng)
    return data
