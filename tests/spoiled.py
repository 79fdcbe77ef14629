"""Pictures, labels.csv and params.yaml that were good before they were spoiled: what tests/fuzz.py feeds.

`picture(n)`, `csv(n)` and `params(n)`: the same number gives the same bytes, on every machine with the same Pillow.
"""

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from tests import strange

Edit = Callable[[bytes, random.Random], bytes]
ROOT = Path(__file__).parent.parent
NUMBERS = (0, 1, 2, 3, 8, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 10**6, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
PNG_SIGN = b"\x89PNG\r\n\x1a\n"
SIZES = {b"\x89PNG": (16, ">II"), b"GIF8": (6, "<HH"), b"BM": (18, "<ii"), b"RIFF": (24, "<HH")}  # where, how


def places(data: bytes, rng: random.Random) -> tuple[int, int]:
    """Start and end of a stretch, most of them short."""
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.choice((1, 2, 4, 16, 300, len(data))))


def flip(data: bytes, rng: random.Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(rng.choice((1, 2, 8, 40)) if data else 0):
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
    return bytes(spoiled)


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def remove(data: bytes, rng: random.Random) -> bytes:
    start, end = places(data, rng)
    return data[:start] + data[end:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    start, end = places(data, rng)
    return data[:start] + data[start:end] * rng.choice((2, 3, 20)) + data[end:]


def insert(data: bytes, rng: random.Random) -> bytes:
    start, _ = places(data, rng)
    return data[:start] + rng.choice((rng.randbytes(rng.randrange(1, 40)), b"\0" * 9, b"\xff" * 9)) + data[start:]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    """A number that lengths, counts and sizes do not expect."""
    start, _ = places(data, rng)
    number = struct.pack(rng.choice("<>") + "I", rng.choice(NUMBERS))[: rng.choice((1, 2, 4))]
    return data[:start] + number + data[start + len(number) :]


ANY: Sequence[Edit] = (flip, cut, remove, repeat, insert, overwrite)


def jpeg_segments(data: bytes) -> list[bytes]:
    """The marker segments, each with its two bytes of marker; the last holds the scan and all that follows."""
    parts, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts.append(data[at:end])
        at = end
    return [data[:2], *parts, data[at:]]


def in_jpeg(data: bytes, rng: random.Random) -> bytes:
    """One segment spoiled: its content with its length mended, its length, its marker, its place, the frame's size."""
    parts = jpeg_segments(data)
    at = rng.randrange(len(parts))
    marker, content = parts[at][:2], parts[at][4:]
    what = rng.randrange(6)
    if what == 0:
        content = rng.choice(ANY)(content, rng)[:0xFFF0]
        parts[at] = marker + struct.pack(">H", len(content) + 2) + content
    elif what == 1:
        parts[at] = marker + struct.pack(">H", rng.choice(NUMBERS) & 0xFFFF) + content
    elif what == 2:
        parts[at] = b"\xff" + rng.randbytes(1) + parts[at][2:]
    elif what == 3:
        parts.insert(rng.randrange(len(parts)), parts[at] * rng.choice((1, 2, 50)))
    elif what == 4:
        rng.shuffle(parts)
    frames = [place for place, part in enumerate(parts) if part[:1] == b"\xff" and part[1:2] in (b"\xc0", b"\xc2")]
    if what == 5 and frames:
        part = parts[frames[0]]
        parts[frames[0]] = part[:5] + struct.pack(">HH", *(rng.choice(NUMBERS) & 0xFFFF for _ in "hw")) + part[9:]
    return b"".join(parts)


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, content) of each chunk."""
    chunks, at = [], len(PNG_SIGN)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return chunks


def in_png(data: bytes, rng: random.Random) -> bytes:
    """One chunk spoiled, all checksums right, so that the code behind them is reached."""
    chunks = png_chunks(data) or [(b"IEND", b"")]
    at = rng.randrange(len(chunks))
    kind, content = chunks[at]
    what = rng.randrange(5)
    if what == 0:
        chunks[at] = kind, rng.choice(ANY)(content, rng)
    elif what == 1:
        chunks[at] = rng.choice((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"iCCP", b"zTXt", b"eXIf", b"acTL")), content
    elif what == 2:
        chunks.insert(rng.randrange(len(chunks)), (kind, content * rng.choice((1, 3))))
    elif what == 3:
        rng.shuffle(chunks)
    else:
        chunks = [(kind, spoiled_pixels(content, rng) if kind == b"IDAT" else content) for kind, content in chunks]
    wrong = at if rng.random() < 0.1 else -1  # its length is not that of its content
    return PNG_SIGN + b"".join(
        struct.pack(">I", rng.choice(NUMBERS) if place == wrong else len(content))
        + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for place, (kind, content) in enumerate(chunks)
    )  # fmt: skip


def spoiled_pixels(content: bytes, rng: random.Random) -> bytes:
    try:
        return zlib.compress(rng.choice(ANY)(zlib.decompress(content), rng))
    except zlib.error:
        return flip(content, rng)


def in_tiff(data: bytes, rng: random.Random) -> bytes:
    """A tag, a type, a count or a value of the first directory."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4) if len(data) >= 8 else (0,)
    (count,) = struct.unpack_from(order + "H", data, at) if at + 2 <= len(data) else (0,)
    if not count:
        return overwrite(data, rng)
    entry = at + 2 + 12 * rng.randrange(count)
    field, kind = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H")))
    number = struct.pack(order + kind, rng.choice(NUMBERS) & (0xFFFF if kind == "H" else 0xFFFFFFFF))
    return data[: entry + field] + number + data[entry + field + len(number) :]


def other_size(data: bytes, rng: random.Random) -> bytes:
    """Width and height in the header: huge, negative, none."""
    for sign, (at, kind) in SIZES.items():
        if data.startswith(sign):
            most = 0xFFFF if "H" in kind else 0x7FFFFFFF
            size = struct.pack(kind, *(rng.choice(NUMBERS) & most for _ in "wh"))
            spoiled = data[:at] + size + data[at + len(size) :]
            if sign == PNG_SIGN[:4]:
                spoiled = spoiled[:29] + struct.pack(">I", zlib.crc32(spoiled[12:29])) + spoiled[33:]
            return spoiled
    return (in_jpeg if data[:2] == b"\xff\xd8" else in_tiff)(data, rng)


def encoded(mode: str, file_format: str, side: int = 37, **options: object) -> bytes:
    noise = random.Random(0).randbytes(3 * side * side)
    image = Image.frombytes("RGB", (side, side), noise).resize((side, side + 10))
    buffer = io.BytesIO()
    grey16 = mode == "I;16"
    (image.convert("L").convert("I").convert(mode) if grey16 else image.convert(mode)).save(
        buffer, file_format, **options
    )
    return buffer.getvalue()


@functools.cache
def good_pictures() -> dict[str, list[bytes]]:
    """By format."""
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x0132] = 6, "a picture", "2020:01:01 00:00:00"
    other = Image.new("RGB", (37, 47), "red")
    icc, clear = random.Random(1).randbytes(400), bytes(range(0, 250, 2))
    return {
        "jpeg": [
            encoded("RGB", "JPEG"), encoded("L", "JPEG", progressive=True), encoded("CMYK", "JPEG"),
            encoded("RGB", "JPEG", side=300, exif=exif, icc_profile=icc), encoded("RGB", "JPEG", restart_marker_rows=1),
            encoded("YCbCr", "JPEG", subsampling=2, comment=b"hm", dpi=(300, 300)),
            encoded("RGB", "MPO", save_all=True, append_images=[other]),
        ],
        "png": [
            encoded("RGB", "PNG", exif=exif, icc_profile=icc), encoded("P", "PNG", transparency=clear),
            encoded("RGBA", "PNG"), encoded("LA", "PNG"), encoded("I;16", "PNG"), encoded("1", "PNG", bits=1),
            encoded("L", "PNG", transparency=7), encoded("RGB", "PNG", save_all=True, append_images=[other]),
        ],
        "gif": [encoded("P", "GIF"), encoded("P", "GIF", transparency=3, save_all=True, append_images=[other] * 2)],
        "webp": [
            encoded("RGB", "WEBP"), encoded("RGBA", "WEBP", lossless=True, exif=exif),
            encoded("RGB", "WEBP", save_all=True, append_images=[other]),
        ],
        "tiff": [
            *(encoded("RGB", "TIFF", compression=how) for how in (None, "tiff_lzw", "tiff_deflate", "jpeg")),
            encoded("RGB", "TIFF", compression="packbits"), encoded("1", "TIFF", compression="group4"),
            encoded("I;16", "TIFF", exif=exif), encoded("F", "TIFF"), encoded("CMYK", "TIFF"), encoded("P", "TIFF"),
            encoded("RGBA", "TIFF", big_tiff=True),
        ],
        "bmp": [encoded("RGB", "BMP"), encoded("P", "BMP"), encoded("1", "BMP"), encoded("RGBA", "BMP")],
        "other": [encoded("RGB", "PPM"), encoded("RGB", "JPEG2000"), encoded("RGB", "AVIF"), encoded("RGB", "EPS")],
    }  # fmt: skip


def picture(number: int) -> bytes:
    rng = random.Random(f"picture {number}")
    good = good_pictures()
    kind = rng.choice(("jpeg", "jpeg", "jpeg", "png", "png", "png", "tiff", "tiff", *good))
    data = rng.choice(good[kind])
    within = {"jpeg": in_jpeg, "png": in_png, "tiff": in_tiff}.get(kind, overwrite)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 6))):
        other = rng.choice(good[rng.choice(list(good))])
        what = rng.randrange(10)
        if what < 5:
            data = within(data, rng)
        elif what == 5:
            data = other_size(data, rng)
        elif what == 6:
            data = data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]
        else:
            data = rng.choice(ANY)(data, rng)
    return data


def spoil_text(text: str, rng: random.Random, edits: Sequence[Callable[[str, random.Random], str]]) -> bytes:
    """A few edits of the text, at times one of its bytes, at times another encoding."""
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        text = rng.choice(edits)(text, rng)
    encoding = rng.choice(("utf-8",) * 30 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "utf-7", "cp037"))
    data = text.encode(encoding, errors="replace" if encoding in ("latin-1", "cp037") else "surrogatepass")
    return rng.choice(ANY)(data, rng) if rng.random() < 0.2 else data


def csv(number: int) -> bytes:
    rng = random.Random(f"csv {number}")
    return spoil_text(strange.LABELS, rng, strange.CSV_EDITS)


@functools.cache
def good_params() -> str:
    return (ROOT / "params.yaml").read_text(encoding="utf-8")


def params(number: int) -> bytes:
    rng = random.Random(f"params {number}")
    return spoil_text(good_params(), rng, strange.YAML_EDITS)
