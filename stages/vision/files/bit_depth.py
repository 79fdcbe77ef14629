"""Pictures of more than 8 bits: which values become black and white, decided once for a whole data set.

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
STEPS = 16  # ranges are rounded to this many steps of a power of two, so that a new picture seldom changes them
FEW_LEVELS = 64
STRIP = 1 << 20  # pixels that are processed together
SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GREY_AND_ALPHA = "LA;16B"  # of PNG
COLOURS = re.compile(r"(RGB[AX]?;16)([BLN])")


class Range(NamedTuple):
    """The range of a picture's stored values, and without the darkest and brightest 0.1 % of pixels."""

    low: int
    high: int
    dark: int
    bright: int


def window_of(depth: Depth, ranges: Sequence[Range]) -> Window | None:
    """The window that `ingest.depth` selects for a data set; None: the full range of each file."""
    if depth == "full" or not ranges:
        return None
    if depth == "used":
        return widened(min(r.low for r in ranges), max(r.high for r in ranges))
    return (0, (1 << depth) - 1) if isinstance(depth, int) else depth


def widened(low: int, high: int) -> Window:
    """The range rounded outwards to coarse steps."""
    step = max(1, (1 << (high - low).bit_length()) // STEPS)
    return low // step * step, min(VALUES, (high // step + 1) * step) - 1


def remarks(depth: Depth, window: Window | None, ranges: Sequence[Range]) -> list[str]:
    """Remarks on a data set: how values become grey levels, and what is lost."""
    if not ranges:
        return []
    low, high = min(r.low for r in ranges), max(r.high for r in ranges)
    how = f"{window[0]:,} is black and {window[1]:,} white" if window else "all bits of the file count"
    shown = list(depth) if isinstance(depth, tuple) else depth
    lines = [
        f"{len(ranges):,} pictures have more than 8 bits, with values from {low:,} to {high:,}; "
        f"ingest.depth is {shown}: {how}"
    ]
    if window and (low < window[0] or high > window[1]):
        beyond = sum(r.low < window[0] or r.high > window[1] for r in ranges)
        lines.append(
            f"WARNING: values of {beyond:,} of them lie beyond that and are cut off: ingest.depth: used keeps all"
        )
    kept = median(levels(one, window) for one in ranges)
    if kept < FEW_LEVELS and kept < median(r.bright - r.dark + 1 for r in ranges) / 2:
        dark, bright = min(r.dark for r in ranges), max(r.bright for r in ranges)
        used, close = (
            widened(low, high),
            widened(int(median(r.dark for r in ranges)), int(median(r.bright for r in ranges))),
        )
        better = median(levels(one, used) for one in ranges)
        advice = "used" if better >= 2 * kept else str(list(close))
        lines.append(
            f"WARNING: half of them keep {kept:.0f} of 256 grey levels or fewer: most of their values lie between "
            f"{dark:,} and {bright:,}. Set ingest.depth to {advice}"
        )
    return lines


def levels(values: Range, window: Window | None) -> int:
    """Grey levels between a picture's dark and bright values."""
    lut = table(window or (0, VALUES - 1))
    return int(lut[values.bright]) - int(lut[values.dark]) + 1


@functools.lru_cache(maxsize=64)
def table(window: Window) -> npt.NDArray[np.uint8]:
    """(65536,): the grey level of each stored value."""
    low, high = window
    greys = (np.arange(VALUES) - low) * 256 // (high + 1 - low)
    return greys.clip(0, 255).astype(np.uint8)


def grey(image: Image.Image, window: Window | None) -> tuple[Image.Image, Range | None]:
    """Converts a picture of mode I with values below 65,536 to mode L; without a window by its own range, which is
    returned."""
    values = None
    if window is None:
        counts = np.zeros(VALUES, np.int64)
        for box in strips(image.size):
            counts += np.bincount(np.asarray(image.crop(box)).ravel(), minlength=VALUES)
        values = range_of(counts)
        window = values.low, values.high
    return image.point(table(window).tolist(), "L"), values


def colour(high: Image.Image, low: Image.Image, window: Window | None) -> Range | None:
    """Converts a colour picture in place to 8 bits, from its upper bytes `high` and lower bytes `low`. Alpha stays.
    Without a window by its own range, which is returned."""
    values = None
    if window is None:
        counts = np.zeros(VALUES, np.int64)
        for box in strips(high.size):
            counts += np.bincount(_both(high, low, box)[..., :3].ravel(), minlength=VALUES)
        values = range_of(counts)
        window = values.low, values.high
    for box in strips(high.size):
        greys = table(window)[_both(high, low, box)]
        if high.mode == "RGBA":
            greys[..., 3] = np.asarray(high.crop(box))[..., 3]
        high.paste(Image.fromarray(greys), box)
    return values


def _both(high: Image.Image, low: Image.Image, box: tuple[int, int, int, int]) -> npt.NDArray[np.uint16]:
    values = np.asarray(high.crop(box)).astype(np.uint16)
    values *= 256
    values += np.asarray(low.crop(box))
    return values


def strips(size: tuple[int, int]) -> Iterator[tuple[int, int, int, int]]:
    width, height = size
    rows = max(1, STRIP // width)
    for top in range(0, height, rows):
        yield 0, top, width, min(height, top + rows)


def range_of(counts: npt.NDArray[np.int64]) -> Range:
    """The range of values, from the count of each value."""
    places = np.flatnonzero(counts)
    below = np.cumsum(counts)
    dark, bright = np.searchsorted(below, [below[-1] * 0.001, below[-1] * 0.999], side="right").clip(max=places[-1])
    return Range(int(places[0]), int(places[-1]), int(dark), int(bright))


class Tiles(NamedTuple):
    """Values for the `tile` of an opened file with which Pillow reads the upper or the lower bytes of its colours."""

    upper: list[Any]
    lower: list[Any]


def tiles_of(image: ImageFile) -> Tiles | None:
    """The tiles of an opened file; None if it has no colours of 16 bits."""
    tiles = Tiles([], [])
    for tile in image.tile:
        rawmode, *others = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
        upper = lower = str(rawmode)
        if tile.codec_name == "ppm" and image.mode == "RGB" and others == [VALUES - 1]:
            tile, upper, lower, others = tile._replace(codec_name="raw"), "RGB;16B", "RGB;16L", [0, 1]
        elif upper == GREY_AND_ALPHA:
            lower = "RGBA"
        elif (found := COLOURS.fullmatch(upper)) and getattr(image, "tag_v2", {}).get(284, 1) == 1:
            lower = found[1] + SWAPPED[found[2]]
        else:
            return None
        for way, mode in zip(tiles, (upper, lower), strict=True):
            way.append(tile._replace(args=(mode, *others) if others else mode))
    return tiles if image.tile else None


def low_bytes(image: ImageFile, tiles: Tiles) -> Image.Image:
    """The lower bytes of an opened file, in the same bands as Pillow's upper bytes."""
    image.tile = tiles.lower
    image.load()
    if tiles.upper[0].args == GREY_AND_ALPHA:  # Pillow read its four bytes as red, green, blue and alpha
        return Image.merge("RGBA", [image.getchannel(1)] * 4)
    return image


def white_of(image: ImageFile) -> int:
    """The largest possible value of an opened file: 12 bits in TIFF, as declared in PPM, else 16 bits."""
    if image.format == "PPM" and image.tile and isinstance(image.tile[0].args, tuple):
        most = image.tile[0].args[-1]
        return most if isinstance(most, int) and image.tile[0].codec_name != "raw" else VALUES - 1
    return 4095 if getattr(image, "tag_v2", {}).get(258) == (12,) else VALUES - 1


def black_is_zero(data: bytes) -> bytes | None:
    """A TIFF file in which 0 means white and which Pillow would not invert, marked as if 0 meant black; else None.

    Pillow inverts 1 to 8 bits, reads 16 bits as a negative, and does not support others."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    changed: Any = metadata.changed_tiff(data, 262, 0, 1)
    bits, samples = metadata.tiff_numbers(data, 258), metadata.tiff_numbers(data, 277)
    return changed if changed and (max(bits, default=1) > 8 or max(samples, default=1) > 1) else None
