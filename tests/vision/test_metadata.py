"""Pictures with unreadable metadata are accepted, and they are counted."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, features

from stages.ingest import Notes, remarks
from stages.vision.files.images import BadPictureError, decode, examine
from stages.vision.files.metadata import PNG, unreadable, versions
from tests.vision.test_bit_depth import tiff

LIMIT = 1_000_000
PIXELS = np.random.default_rng(0).integers(256, size=(30, 40, 3), dtype=np.uint8)
PICTURE = Image.fromarray(PIXELS)
UPSIDE_DOWN = Image.fromarray(PIXELS[::-1, ::-1])
SMOOTH = Image.linear_gradient("L").resize((400, 300)).convert("RGB")
ICC = struct.pack(">I", 200).ljust(36, b"\0") + b"acsp".ljust(164, b"\0")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"/>'


def exif(orientation: int = 3) -> bytes:
    found = Image.Exif()
    found[0x0112], found[0x010E] = orientation, "a picture"
    return found.tobytes()


EXIF = exif()
DAMAGED_EXIF = [
    b"", b"Exif\0\0", b"no header of TIFF", EXIF[6:20], EXIF[:12], EXIF.replace(b"MM\0*", b"XX\0*"),
    EXIF[:10] + b"\xff\xff\xff\xff" + EXIF[14:],
    EXIF.replace(struct.pack(">HHI", 0x0112, 3, 1), struct.pack(">HHI", 0x0112, 3, 1 << 30)),
]  # fmt: skip


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def chunk(name: bytes, content: bytes, wrong: bool = False) -> bytes:
    checksum = zlib.crc32(name + content) ^ wrong
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)


def png(*chunks: bytes, after: bytes = b"") -> bytes:
    """Returns PICTURE as PNG, with chunks before and after its pixels."""
    data = saved(PICTURE, "PNG")
    return data[:33] + b"".join(chunks) + data[33:-12] + after + data[-12:]


def jpeg(*segments: bytes, image: Image.Image = SMOOTH) -> bytes:
    """Returns a JPEG with `segments` before its own segments."""
    return b"\xff\xd8" + b"".join(segments) + saved(image, "JPEG", quality=95)[2:]


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2 if length is None else length) + content


def webp(*chunks: tuple[bytes, bytes], flags: int = 0x2C) -> bytes:
    """Returns PICTURE as WebP, with ICCP before its pixels and the other chunks after them."""
    pixels = saved(PICTURE, "WEBP", lossless=True)[12:]
    head = b"VP8X" + struct.pack("<IB3x", 10, flags) + (39).to_bytes(3, "little") + (29).to_bytes(3, "little")
    parts = [name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2) for name, content in chunks]
    front = [part for part in parts if part.startswith(b"ICCP")]
    body = b"WEBP" + head + b"".join(front) + pixels + b"".join(part for part in parts if part not in front)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif(*blocks: bytes) -> bytes:
    data = saved(PICTURE.quantize(16), "GIF")
    offset = 13 + (3 << (data[10] % 8 + 1))
    return data[:offset] + b"".join(blocks) + data[offset:]


PNG_CASES: list[tuple[str, bytes, str]] = [
    *((f"EXIF {n}", png(chunk(b"eXIf", bad)), "EXIF") for n, bad in enumerate(DAMAGED_EXIF)),
    *((f"EXIF {n} after the pixels", png(after=chunk(b"eXIf", bad)), "EXIF") for n, bad in enumerate(DAMAGED_EXIF)),
    ("EXIF, wrong checksum", png(chunk(b"eXIf", EXIF[6:], wrong=True)), "EXIF"),
    ("EXIF, wrong checksum, after the pixels", png(after=chunk(b"eXIf", EXIF[6:], wrong=True)), "EXIF"),
    ("EXIF as text, which is none", png(chunk(b"tEXt", b"Raw profile type exif\0\nexif\n 4\nno hex")), "EXIF"),
    ("ICC, wrong checksum", png(chunk(b"iCCP", b"a\0\0" + zlib.compress(ICC), wrong=True)), "ICC profile"),
    ("ICC over 1 MB", png(chunk(b"iCCP", b"a\0\0" + zlib.compress(ICC + b"\0" * 2_000_000))), "ICC profile"),
    ("ICC, no zlib", png(chunk(b"iCCP", b"a\0\0abc")), "ICC profile"),
    ("ICC, empty", png(chunk(b"iCCP", b"")), "ICC profile"),
    ("ICC, unknown compression", png(chunk(b"iCCP", b"a\0\7" + zlib.compress(ICC))), "ICC profile"),
    ("ICC, cut off", png(chunk(b"iCCP", b"a\0\0" + zlib.compress(ICC)[:20])), "ICC profile"),
    ("XMP over 1 MB", png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2_000_000))), "XMP"),
    ("XMP over 1 MB, after the pixels",
     png(after=chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b" " * 2_000_000))), "XMP"),
    ("XMP, wrong checksum", png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP, wrong=True)), "XMP"),
    ("zTXt over 1 MB", png(chunk(b"zTXt", b"key\0\0" + zlib.compress(b" " * 2_000_000))), "text"),
    ("zTXt, unknown compression", png(chunk(b"zTXt", b"key\0\7" + zlib.compress(b"text"))), "text"),
    ("tEXt, wrong checksum", png(chunk(b"tEXt", b"key\0text", wrong=True)), "text"),
    ("tEXt with the name of something else", png(chunk(b"tEXt", b"transparency\0text")), "other"),
    *((f"{name.decode()}, too short", png(chunk(name, b"")), "other") for name in
      (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"acTL", b"fcTL")),
    *((f"{name.decode()}, wrong checksum", png(chunk(name, bytes(32), wrong=True)), "other") for name in
      (b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"tIME", b"bKGD", b"sBIT", b"hIST", b"sPLT", b"prVt")),
    ("a length that is too large", png(struct.pack(">I", 9000) + chunk(b"tEXt", b"key\0text")[4:]), "text"),
    ("a length that is too small", png(struct.pack(">I", 2) + chunk(b"tEXt", b"key\0text")[4:]), "text"),
    ("a length beyond the file", png(struct.pack(">I", 0xFFFFFFFF) + chunk(b"eXIf", EXIF[6:])[4:]), "EXIF"),
    ("a name that is none", png(chunk(b"t\0Xt", b"key\0text")), "other"),
]  # fmt: skip

WEBP_CASES: list[tuple[str, bytes, str]] = [
    *((f"EXIF {n}", webp((b"EXIF", bad), flags=8), "EXIF") for n, bad in enumerate(DAMAGED_EXIF)),
    ("ICC that is none", webp((b"ICCP", b"abc"), flags=0x20), "ICC profile"),
    ("EXIF, cut off", webp((b"EXIF", EXIF), flags=8)[:-20], "EXIF"),
    ("EXIF, length beyond the file", webp((b"EXIF", EXIF), flags=8).replace(
        b"EXIF" + struct.pack("<I", len(EXIF)), b"EXIF" + struct.pack("<I", 1 << 20)), "EXIF"),
]  # fmt: skip

JPEG_CASES: list[tuple[str, bytes, str]] = [
    *((f"EXIF {n}", jpeg(segment(0xE1, b"Exif\0\0" + bad)), "EXIF") for n, bad in enumerate(DAMAGED_EXIF)),
    ("EXIF, too long", jpeg(segment(0xE1, EXIF, len(EXIF) + 40)), "EXIF"),
    ("EXIF, too short", jpeg(segment(0xE1, EXIF, 20)), "EXIF"),
    ("EXIF, no length", jpeg(segment(0xE1, EXIF, 0)), "EXIF"),
    ("EXIF with a small picture, too long",
     jpeg(segment(0xE1, EXIF + saved(SMOOTH.resize((32, 24)), "JPEG"), 0x6000)), "EXIF"),
    ("ICC, too short", jpeg(segment(0xE2, b"ICC_PROFILE\0")), "ICC profile"),
    ("ICC that is none", jpeg(segment(0xE2, b"ICC_PROFILE\0\1\1abc")), "ICC profile"),
    ("JFIF, too short", b"\xff\xd8" + segment(0xE0, b"JFIF\0") + saved(SMOOTH, "JPEG", quality=95)[20:], "other"),
    ("Adobe, too short", jpeg(segment(0xEE, b"Adobe")), "other"),
    ("a multi-picture index that is none", jpeg(segment(0xE2, b"MPF\0II*\0abc")), "other"),
    ("Photoshop, too short", jpeg(segment(0xED, b"Photoshop 3.0\x008BIM")), ""),
]  # fmt: skip

GIF_CASES: list[tuple[str, bytes, str]] = [
    ("a loop that is too short", gif(b"\x21\xff\x0bNETSCAPE2.0\x01\x01\0"), "other"),
    ("a graphic control that is too short", gif(b"\x21\xf9\x01\0\0"), "other"),
]

BEYOND = 1 << 30
TIFF_CASES: list[tuple[str, bytes, str]] = [
    ("EXIF beyond the file", tiff(PIXELS, tags=[(34665, 4, [BEYOND])]), "EXIF"),
    ("EXIF of another type", tiff(PIXELS, tags=[(34665, 2, b"abc")]), "EXIF"),
    ("EXIF in the pixels", tiff(PIXELS, tags=[(34665, 4, [9])]), "EXIF"),
    ("GPS beyond the file", tiff(PIXELS, tags=[(34853, 4, [BEYOND])]), "EXIF"),
    ("ICC that is none", tiff(PIXELS, tags=[(34675, 7, b"abcdefg")]), "ICC profile"),
    ("a resolution that is text", tiff(PIXELS, tags=[(282, 2, b"abc"), (283, 2, b"abc"), (296, 3, [3])]), "other"),
    ("a tag of an unknown type", tiff(PIXELS, tags=[(305, 99, b"abc")]), "other"),
]


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        *((data, name, PICTURE) for _, data, name in PNG_CASES + WEBP_CASES + TIFF_CASES),
        *((data, name, SMOOTH) for _, data, name in JPEG_CASES),
        *((data, name, PICTURE.quantize(16).convert("RGB")) for _, data, name in GIF_CASES),
    ],
    ids=[
        f"{kind}: {case[0]}"
        for kind, cases in (("PNG", PNG_CASES), ("WebP", WEBP_CASES), ("TIFF", TIFF_CASES), ("JPEG", JPEG_CASES),
                            ("GIF", GIF_CASES))
        for case in cases
    ],
)  # fmt: skip
def test_damaged_metadata_cost_no_picture(data: bytes, name: str, expected: Image.Image) -> None:
    found = examine(data, LIMIT)
    close = 12 if data.startswith(b"\xff\xd8") else 0
    assert found.image.size == expected.size
    np.testing.assert_allclose(np.asarray(found.image, int), np.asarray(expected, int), atol=close)
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), np.asarray(found.image))
    assert found.facts.orientation == 1
    assert found.unreadable == ([name] if name else [])


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (png(chunk(b"iCCP", b"a\0\0" + zlib.compress(ICC), wrong=True), chunk(b"eXIf", EXIF[6:])), ["ICC profile"]),
        (png(chunk(b"tEXt", b"k\0v", wrong=True), after=chunk(b"eXIf", EXIF[6:])), ["text"]),
        (jpeg(segment(0xE1, EXIF), segment(0xE2, b"ICC_PROFILE\0\1\1abc"), image=SMOOTH), ["ICC profile"]),
        (webp((b"ICCP", b"abc"), (b"EXIF", EXIF), flags=0x28), ["ICC profile"]),
        (tiff(PIXELS, tags=[(274, 3, [3]), (34665, 4, [BEYOND])]), ["EXIF"]),
    ],
    ids=["PNG", "PNG, after the pixels", "JPEG", "WebP", "TIFF"],
)
def test_what_can_be_read_counts_where_something_else_cannot(data: bytes, names: list[str]) -> None:
    found = examine(data, LIMIT)
    assert (found.unreadable, found.facts.orientation) == (names, 3)
    upright = np.asarray(SMOOTH.rotate(180) if data.startswith(b"\xff\xd8") else UPSIDE_DOWN, int)
    np.testing.assert_allclose(np.asarray(found.image, int), upright, atol=12 if data.startswith(b"\xff\xd8") else 0)


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"iCCP", b"a\0\0" + zlib.compress(ICC)), chunk(b"eXIf", EXIF[6:]), chunk(b"tEXt", b"k\0v")),
        saved(PICTURE, "PNG", exif=EXIF, icc_profile=ICC), saved(PICTURE, "JPEG", exif=EXIF, icc_profile=ICC, xmp=XMP),
        saved(PICTURE, "WEBP", exif=EXIF, icc_profile=ICC, xmp=XMP), saved(PICTURE, "TIFF", icc_profile=ICC, exif=EXIF),
        saved(PICTURE, "GIF", comment=b"hello", save_all=True, append_images=[SMOOTH.resize((40, 30))], loop=0),
        saved(PICTURE, "BMP"), saved(PICTURE, "PPM"), saved(PICTURE, "JPEG", comment=b"hello", dpi=(300, 300)),
    ],
)  # fmt: skip
def test_metadata_in_order_are_not_counted_and_can_be_left_out(data: bytes) -> None:
    assert unreadable(data) == []
    whole = Image.open(io.BytesIO(data)).convert("RGB")
    for version in versions(data):
        assert len(version) <= len(data)
        image = Image.open(io.BytesIO(version))
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(whole))


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("options", [{"exif": EXIF}, {"icc_profile": ICC, "xmp": XMP}])
def test_avif(options: dict[str, bytes]) -> None:
    plain, data = saved(SMOOTH, "AVIF"), saved(SMOOTH, "AVIF", exif=EXIF)
    for offset in (data.index(b"II*\0") if b"II*\0" in data else data.index(b"MM\0*"),):
        data = data[:offset] + b"none" + data[offset + 4 :]
    found = examine(data, LIMIT)
    assert found.unreadable == ["other"]
    upright = np.asarray(
        decode(saved(SMOOTH, "AVIF", exif=EXIF), LIMIT)
    )  # AVIF stores the orientation outside EXIF too
    np.testing.assert_array_equal(np.asarray(found.image), upright)
    image = examine(saved(SMOOTH, "AVIF", **options), LIMIT).image
    assert image.size == Image.open(io.BytesIO(plain)).size


@pytest.mark.parametrize("cut", [lambda data: data[:-200], lambda data: data[:30] + b"none" + data[34:]])
def test_damaged_pixels_stay_damaged(cut: Callable[[bytes], bytes]) -> None:
    """The damaged chunk beside the pixels is ignored; the damaged pixels are an error."""
    with pytest.raises(BadPictureError):
        decode(cut(png(chunk(b"tEXt", b"k\0v", wrong=True))), LIMIT)


def test_it_is_said_how_many() -> None:
    import pandas as pd

    table = pd.DataFrame({"sha256": ["a", "b", "c", "a"], "file": ["train/z.png", "b", "c", "train/y.png"]})
    notes = Notes({}, {"a": ["EXIF"], "b": ["EXIF", "text"]})
    assert list(remarks(notes, table)) == [
        "3 pictures have metadata that cannot be read (EXIF of 3, text of 1; b is one): the pixels are used without "
        "the metadata"
    ]
    assert list(remarks(Notes({}, {}), table)) == []
    assert saved(PICTURE, "PNG")[:8] == PNG
