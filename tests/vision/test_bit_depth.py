"""More than 8 bits: every value becomes the grey level of its window, in each format, byte order and depth."""

import io
import struct
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from stages.vision.files.bit_depth import Range, Window, lookup_table, remarks, widened, window_of
from stages.vision.files.images import decode, examine

LIMIT = 1_000_000
RNG = np.random.default_rng(0)
TWELVE: Window = (0, 4095)
Array = npt.NDArray[Any]


def tiff(
    pixels: Array,
    order: Literal["<", ">"] = "<",
    photometric: int | None = None,
    bits: int | None = None,
    tags: Sequence[tuple[int, int, bytes | list[int]]] = (),
    packed: bytes | None = None,
) -> bytes:
    """Returns a TIFF file. `pixels`: (h, w) or (h, w, c), uint8 or uint16; `tags`: (tag, type, values)."""
    pixels = pixels if pixels.ndim == 3 else pixels[..., None]
    height, width, samples = pixels.shape
    body = packed or pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    photometric = photometric if photometric is not None else 2 if samples > 2 else 1
    entries: list[tuple[int, int, bytes | list[int]]] = [
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits or 8 * pixels.dtype.itemsize] * samples), (259, 3, [1]),
        (262, 3, [photometric]), (273, 4, [8]), (277, 3, [samples]), (278, 4, [height]), (279, 4, [len(body)]), *tags,
    ]  # fmt: skip
    start = 8 + len(body) + len(body) % 2
    rest = start + 2 + 12 * len(entries) + 4
    directory, outside = struct.pack(order + "H", len(entries)), b""
    for tag, kind, values in sorted(entries):
        raw = values if isinstance(values, bytes) else struct.pack(f"{order}{len(values)}{'HI'[kind == 4]}", *values)
        directory += struct.pack(order + "HHI", tag, kind, len(values))
        if len(raw) > 4:
            directory += struct.pack(order + "I", rest + len(outside))
            outside += raw + b"\0" * (len(raw) % 2)
        else:
            directory += raw.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", start)
    return (head + body).ljust(start, b"\0") + directory + bytes(4) + outside


def png(pixels: Array) -> bytes:
    """Returns a PNG file of pixels (h, w, c) of 16 bits.

    Each pixel is stored as the difference to its left neighbour, which a decoder of 8 bits would get wrong.
    """
    height, width, bands = pixels.shape
    lines = pixels.astype(">u2").reshape(height, -1).view(np.uint8).reshape(height, -1)
    left = np.pad(lines, ((0, 0), (2 * bands, 0)))[:, : lines.shape[1]]
    content = zlib.compress(b"".join(b"\1" + line.tobytes() for line in lines - left))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[bands], 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def pgm(pixels: Array, max_value: int, letter: str = "P5") -> bytes:
    height, width = pixels.shape[:2]
    plain = " ".join(str(value) for value in pixels.ravel()).encode() + b"\n"
    return f"{letter} {width} {height} {max_value}\n".encode() + (
        plain if letter < "P4" else pixels.astype(">u2").tobytes()
    )


def saved(pixels: Array, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, file_format, **options)
    return buffer.getvalue()


def packed_twelve(pixels: Array) -> bytes:
    pairs = pixels.reshape(-1, 2).astype(int)
    three = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
    return np.stack(three, 1).astype(np.uint8).tobytes()


GREY = RNG.integers(0, 4096, (40, 50)).astype(np.uint16)
COLOUR: Array = RNG.integers(0, 4096, (40, 50, 3)).astype(np.uint16)
OPAQUE = np.full((40, 50, 1), 65535, np.uint16)
ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
COMPRESSIONS = (None, "tiff_lzw", "tiff_deflate", "packbits")
GREY_FILES = {
    "PNG": saved(GREY, "PNG"), "PGM": pgm(GREY, 65535),
    **{f"TIFF {name}": saved(GREY, "TIFF", compression=name) for name in COMPRESSIONS},
    **{f"TIFF {order}": tiff(GREY, order) for order in ORDERS},
}  # fmt: skip
COLOUR_FILES = {
    "PNG": png(COLOUR), "PNG with alpha": png(np.concatenate([COLOUR, OPAQUE], 2)), "PPM": pgm(COLOUR, 65535, "P6"),
    **{f"TIFF {order}": tiff(COLOUR, order) for order in ORDERS},
    **{f"TIFF with alpha {order}": tiff(np.concatenate([COLOUR, OPAQUE], 2), order, tags=[(338, 3, [2])])
       for order in ORDERS},
}  # fmt: skip


@pytest.mark.parametrize("name", GREY_FILES)
def test_twelve_bits_in_sixteen_grey(name: str) -> None:
    np.testing.assert_array_equal(np.asarray(decode(GREY_FILES[name], LIMIT)), GREY >> 8)
    np.testing.assert_array_equal(np.asarray(decode(GREY_FILES[name], LIMIT, window=TWELVE)), GREY >> 4)
    values = examine(GREY_FILES[name], LIMIT).values
    assert values is not None
    assert values[:2] == (GREY.min(), GREY.max())


@pytest.mark.parametrize("name", COLOUR_FILES)
def test_twelve_bits_in_sixteen_in_colour(name: str) -> None:
    full = np.asarray(decode(COLOUR_FILES[name], LIMIT), int)
    np.testing.assert_allclose(full, COLOUR / 256, atol=1)
    np.testing.assert_array_equal(np.asarray(decode(COLOUR_FILES[name], LIMIT, window=TWELVE)), COLOUR >> 4)
    values = examine(COLOUR_FILES[name], LIMIT).values
    assert values is not None
    assert values[:2] == (COLOUR.min(), COLOUR.max())


def test_grey_with_alpha_of_sixteen_bits() -> None:
    data = png(np.concatenate([GREY[..., None], OPAQUE], 2))
    found = np.asarray(decode(data, LIMIT, window=TWELVE))
    np.testing.assert_array_equal(found, np.repeat((GREY >> 4)[..., None], 3, 2))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_zero_is_white_where_the_file_says_so(order: Literal["<", ">"], bits: int) -> None:
    if bits == 12 and order == ">":
        pytest.skip("Pillow reads 12 bits of one byte order alone")
    pixels = RNG.integers(0, 1 << bits, (40, 50)).astype(np.uint8 if bits == 8 else np.uint16)
    packed = packed_twelve(pixels) if bits == 12 else None
    for photometric in (0, 1):
        data = tiff(pixels, order, photometric, bits, packed=packed)
        expected: Array = pixels if photometric else (1 << bits) - 1 - pixels
        np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), expected >> (bits - 8))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_zero_is_white_in_few_bits(bits: int) -> None:
    pixels = RNG.integers(0, 1 << bits, (40, 48)).astype(np.uint8)
    shifts = np.arange(8 - bits, -1, -bits)
    packed = (pixels.reshape(40, -1, 8 // bits) << shifts).sum(2).astype(np.uint8).tobytes()
    for photometric in (0, 1):
        grey = pixels.astype(int) * 255 // ((1 << bits) - 1)
        found = decode(tiff(pixels, "<", photometric, bits, packed=packed), LIMIT).convert("L")
        np.testing.assert_array_equal(np.asarray(found), grey if photometric else 255 - grey)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
def test_zero_is_white_in_a_compressed_file(compression: str) -> None:
    data = bytearray(saved(GREY, "TIFF", compression=compression))
    at = data.index(struct.pack("<HHIH", 262, 3, 1, 1))
    data[at + 8] = 0
    np.testing.assert_array_equal(np.asarray(decode(bytes(data), LIMIT)), 255 - (GREY >> 8))
    np.testing.assert_array_equal(np.asarray(decode(bytes(data), LIMIT, window=TWELVE)), 255 - (GREY >> 4))


@pytest.mark.parametrize("order", ORDERS)
def test_zero_is_white_with_alpha(order: Literal["<", ">"]) -> None:
    pixels = RNG.integers(0, 256, (40, 50, 2)).astype(np.uint8)
    pixels[..., 1] = 255
    found = np.asarray(decode(tiff(pixels, order, 0, tags=[(338, 3, [2])]), LIMIT))
    np.testing.assert_array_equal(found, 255 - pixels[..., 0])


def test_twelve_bits_that_the_file_names() -> None:
    data = tiff(GREY, bits=12, packed=packed_twelve(GREY))
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), GREY >> 4)


@pytest.mark.parametrize("letter", ["P2", "P5"])
@pytest.mark.parametrize("max_value", [300, 1000, 4095, 65535])
def test_any_largest_value_that_a_pgm_names(letter: str, max_value: int) -> None:
    pixels = RNG.integers(0, max_value + 1, (40, 50))
    data = pgm(pixels, max_value, letter)
    expected = pixels * 256 // (max_value + 1)
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT)), expected)
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT, window=(0, max_value))), expected)


def test_all_bits_are_what_they_were() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(np.asarray(decode(saved(values, "PNG"), LIMIT)), values >> 8)


def test_eight_bits_know_no_window() -> None:
    data = saved(GREY.astype(np.uint8), "PNG")
    np.testing.assert_array_equal(np.asarray(decode(data, LIMIT, window=(10, 20))), GREY.astype(np.uint8))
    assert examine(data, LIMIT).values is None


def test_a_thumb_does_not_depend_on_the_range() -> None:
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint16)
    dark, bright = (examine(saved(pixels, "PNG"), LIMIT).image for pixels in (smooth, smooth * 500))
    np.testing.assert_allclose(np.asarray(dark, int), np.asarray(bright, int), atol=2)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 4095, (0, 4095)), (3, 4001, (0, 4095)), (0, 65535, (0, 65535)), (7, 65000, (0, 65535)), (0, 255, (0, 255)),
        (28_113, 31_950, (27_904, 31_999)), (0, 0, (0, 0)), (5, 5, (5, 5)), (0, 1, (0, 1)),
    ],
)  # fmt: skip
def test_a_range_is_widened_to_coarse_steps(low: int, high: int, expected: Window) -> None:
    assert widened(low, high) == expected
    assert lookup_table(expected)[low] <= lookup_table(expected)[high]


TWELVES = [Range(0, 4000, 20, 3500), Range(3, 4090, 100, 3900), Range(0, 3900, 50, 3600)]
THERMAL = [Range(28_113, 31_950, 28_300, 31_800)] * 3
WITH_A_DEAD_PIXEL = [*TWELVES, Range(0, 65535, 30, 3700)]


@pytest.mark.parametrize(
    ("depth", "ranges", "expected"),
    [
        ("used", TWELVES, (0, 4095)), ("full", TWELVES, None), (12, TWELVES, (0, 4095)), (10, TWELVES, (0, 1023)),
        ((100, 200), TWELVES, (100, 200)), ("used", [], None), (12, [], None), ("used", THERMAL, (27_904, 31_999)),
    ],
)  # fmt: skip
def test_one_window_for_the_set(depth: Any, ranges: list[Range], expected: Window | None) -> None:
    assert window_of(depth, ranges) == expected


HOW = "{} pictures have more than 8 bits, with values from {} to {}; ingest.depth is {}: "
FEW = "WARNING: half of them keep {} of 256 grey levels or fewer: most of their values lie between {} and {}. Set "


@pytest.mark.parametrize(
    ("depth", "ranges", "expected"),
    [
        ("used", [], []),
        ("used", TWELVES, [HOW.format(3, "0", "4,090", "used") + "0 is black and 4,095 white"]),
        ("full", TWELVES, [HOW.format(3, "0", "4,090", "full") + "all bits of the file count",
                           FEW.format(15, "20", "3,900") + "ingest.depth to used"]),
        (14, THERMAL, [HOW.format(3, "28,113", "31,950", 14) + "0 is black and 16,383 white",
                       "WARNING: values of 3 of them lie beyond that and are cut off: ingest.depth: used keeps all",
                       FEW.format(1, "28,300", "31,800") + "ingest.depth to used"]),
        ("used", WITH_A_DEAD_PIXEL, [HOW.format(4, "0", "65,535", "used") + "0 is black and 65,535 white",
                                     FEW.format(15, "20", "3,900") + "ingest.depth to [0, 3839]"]),
    ],
)  # fmt: skip
def test_what_is_said_of_it(depth: Any, ranges: list[Range], expected: list[str]) -> None:
    assert remarks(depth, window_of(depth, ranges), ranges) == expected
