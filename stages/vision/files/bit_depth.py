"""Converts pictures of more than 8 bits: which values become black and white is decided once for a whole data set.

X-ray detectors, microscopes and thermal cameras store 10 to 14 bits in files of 16, where a plain
conversion would leave 4 to 64 grey levels.
"""

import functools
import re
import sys
from collections.abc import Iterator, Sequence
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.ImageFile import ImageFile

from stages.vision.files import metadata

Window = tuple[int, int]  # the stored values that become black and white; linear in between, clipped beyond
Depth = Literal["full", "used"] | int | Window  # ingest.depth
VALUES = 1 << 16
N_INTERVALS = 16  # ranges are rounded to multiples of a power of two / 16, so that a new picture seldom changes them
MIN_GREY_LEVELS = 64  # fewer give a warning
STRIP_PIXELS = 1 << 20  # this many pixels are processed at a time
OPPOSITE_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GREY_AND_ALPHA = "LA;16B"  # Pillow's raw mode for such PNG files
COLOUR_MODE = re.compile(r"(RGB[AX]?;16)([BLN])")


class Range(NamedTuple):
    """`low`, `high`: the range of a picture's stored values; `dark`, `bright`: the range without the darkest and the
    brightest 0.1 % of the pixels."""

    low: int
    high: int
    dark: int
    bright: int


def window_of(depth: Depth, ranges: Sequence[Range]) -> Window | None:
    """Returns the window that `ingest.depth` selects for a data set, or None for the full range of each file."""
    if depth == "full" or not ranges:
        return None
    if depth == "used":
        return widened(min(r.low for r in ranges), max(r.high for r in ranges))
    return (0, (1 << depth) - 1) if isinstance(depth, int) else depth


def widened(low: int, high: int) -> Window:
    """Returns the range, rounded outwards to coarse intervals."""
    interval = max(1, (1 << (high - low).bit_length()) // N_INTERVALS)
    return low // interval * interval, min(VALUES, (high // interval + 1) * interval) - 1


def remarks(depth: Depth, window: Window | None, ranges: Sequence[Range]) -> list[str]:
    """Returns remarks on a data set: how its values become grey levels, and which values are lost."""
    if not ranges:
        return []
    low, high = min(r.low for r in ranges), max(r.high for r in ranges)
    mapping = f"{window[0]:,} is black and {window[1]:,} white" if window else "all bits of the file count"
    depth_text = list(depth) if isinstance(depth, tuple) else depth
    lines = [
        f"{len(ranges):,} pictures have more than 8 bits, with values from {low:,} to {high:,}; "
        f"ingest.depth is {depth_text}: {mapping}"
    ]
    if window and (low < window[0] or high > window[1]):
        n_clipped = sum(r.low < window[0] or r.high > window[1] for r in ranges)
        lines.append(
            f"WARNING: values of {n_clipped:,} of them lie beyond that and are cut off: ingest.depth: used keeps all"
        )
    n_kept_levels = median(n_levels(values_of_picture, window) for values_of_picture in ranges)
    if n_kept_levels < MIN_GREY_LEVELS and n_kept_levels < median(r.bright - r.dark + 1 for r in ranges) / 2:
        dark, bright = min(r.dark for r in ranges), max(r.bright for r in ranges)
        used_window, typical_window = (
            widened(low, high),
            widened(int(median(r.dark for r in ranges)), int(median(r.bright for r in ranges))),
        )
        n_used_levels = median(n_levels(values_of_picture, used_window) for values_of_picture in ranges)
        advice = "used" if n_used_levels >= 2 * n_kept_levels else str(list(typical_window))
        lines.append(
            f"WARNING: half of them keep {n_kept_levels:.0f} of 256 grey levels or fewer: most of their values lie "
            f"between {dark:,} and {bright:,}. Set ingest.depth to {advice}"
        )
    return lines


def n_levels(values: Range, window: Window | None) -> int:
    """Returns the number of grey levels from a picture's dark to its bright values."""
    lut = lookup_table(window or (0, VALUES - 1))
    return int(lut[values.bright]) - int(lut[values.dark]) + 1


@functools.lru_cache(maxsize=64)
def lookup_table(window: Window) -> npt.NDArray[np.uint8]:
    """Returns the grey level of each stored value, uint8 (65536,)."""
    low, high = window
    greys = (np.arange(VALUES) - low) * 256 // (high + 1 - low)
    return greys.clip(0, 255).astype(np.uint8)


def grey_to_8_bits(image: Image.Image, window: Window | None) -> tuple[Image.Image, Range | None]:
    """Converts a picture of mode I with values below 65,536 to mode L.

    Without `window`, the picture is scaled to its own range, which is returned too.
    """
    values = None
    if window is None:
        counts = np.zeros(VALUES, np.int64)
        for box in strips(image.size):
            counts += np.bincount(np.asarray(image.crop(box)).ravel(), minlength=VALUES)
        values = range_of(counts)
        window = values.low, values.high
    return image.point(lookup_table(window).tolist(), "L"), values


def colour_to_8_bits(high: Image.Image, low: Image.Image, window: Window | None) -> Range | None:
    """Converts a colour picture, given as its upper bytes `high` and its lower bytes `low`, to 8 bits in `high`.

    Alpha is not changed. Without `window`, the picture is scaled to its own range, which is returned.
    """
    values = None
    if window is None:
        counts = np.zeros(VALUES, np.int64)
        for box in strips(high.size):
            counts += np.bincount(_sixteen_bit_values(high, low, box)[..., :3].ravel(), minlength=VALUES)
        values = range_of(counts)
        window = values.low, values.high
    for box in strips(high.size):
        greys = lookup_table(window)[_sixteen_bit_values(high, low, box)]
        if high.mode == "RGBA":
            greys[..., 3] = np.asarray(high.crop(box))[..., 3]
        high.paste(Image.fromarray(greys), box)
    return values


def _sixteen_bit_values(high: Image.Image, low: Image.Image, box: tuple[int, int, int, int]) -> npt.NDArray[np.uint16]:
    values = np.asarray(high.crop(box)).astype(np.uint16)
    values *= 256
    values += np.asarray(low.crop(box))
    return values


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    width, height = size
    rows = max(1, STRIP_PIXELS // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(height, top + rows)


def range_of(counts: npt.NDArray[np.int64]) -> Range:
    """Returns the range of values, given the count of each value."""
    present_values = np.flatnonzero(counts)
    cumulative = np.cumsum(counts)
    limits = [cumulative[-1] * 0.001, cumulative[-1] * 0.999]
    dark, bright = np.searchsorted(cumulative, limits, side="right").clip(max=present_values[-1])
    return Range(int(present_values[0]), int(present_values[-1]), int(dark), int(bright))


class Tiles(NamedTuple):
    """Values for `tile` of an opened file, with which Pillow reads the upper or the lower bytes of its colours."""

    upper: list[Any]
    lower: list[Any]


def tiles_of(image: ImageFile) -> Tiles | None:
    """Returns the tiles of an opened file, or None if it has no colours of 16 bits."""
    tiles = Tiles([], [])
    for tile in image.tile:
        rawmode, *other_args = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        upper = lower = str(rawmode)
        if tile.codec_name == "ppm" and image.mode == "RGB" and other_args == [VALUES - 1]:
            tile, upper, lower, other_args = tile._replace(codec_name="raw"), "RGB;16B", "RGB;16L", [0, 1]
        elif upper == GREY_AND_ALPHA:
            lower = "RGBA"
        elif (match := COLOUR_MODE.fullmatch(upper)) and getattr(image, "tag_v2", {}).get(284, 1) == 1:
            lower = match[1] + OPPOSITE_ORDER[match[2]]
        else:
            return None
        for part, mode in zip(tiles, (upper, lower), strict=True):
            part.append(tile._replace(args=(mode, *other_args) if other_args else mode))
    return tiles if image.tile else None


def low_bytes(image: ImageFile, tiles: Tiles) -> Image.Image:
    """Returns the lower bytes of an opened file, in the same bands as the upper bytes that Pillow reads."""
    image.tile = tiles.lower
    image.load()
    if tiles.upper[0].args == GREY_AND_ALPHA:  # Pillow read the four bytes of a pixel as red, green, blue and alpha
        return Image.merge("RGBA", [image.getchannel(1)] * 4)
    return image


def max_value_of(image: ImageFile) -> int:
    """Returns the largest possible value of an opened file: 12 bits in TIFF, as declared in PPM, else 16 bits."""
    if image.format == "PPM" and image.tile and isinstance(image.tile[0].args, tuple):
        max_value = image.tile[0].args[-1]
        return max_value if isinstance(max_value, int) and image.tile[0].codec_name != "raw" else VALUES - 1
    return 4095 if getattr(image, "tag_v2", {}).get(258) == (12,) else VALUES - 1


def black_is_zero(data: bytes) -> bytes | None:
    """Returns a TIFF file in which 0 means white, marked as if 0 meant black; None if Pillow would invert the file.

    Pillow inverts such files of 1 to 8 bits, reads those of 16 bits as a negative, and does not support other depths.
    """
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    changed: Any = metadata.changed_tiff(data, 262, 0, 1)
    bits, samples = metadata.tiff_numbers(data, 258), metadata.tiff_numbers(data, 277)
    return changed if changed and (max(bits, default=1) > 8 or max(samples, default=1) > 1) else None
