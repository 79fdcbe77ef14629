"""Pictures of more than 8 bits: which of their values become black and white, one decision for all of a set.

X-ray detectors, microscopes and thermal cameras store 10 to 14 bits in files of 16, of which a plain conversion would
leave 4 to 64 grey levels.
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

Window = tuple[int, int]  # the stored values that become black and white; in between evenly, beyond cut off
Depth = Literal["full", "used"] | int | Window  # ingest.depth
VALUES = 1 << 16
STEPS = 16  # a range is widened to a multiple of so many steps of its power of two: a new picture seldom changes it
FEW_LEVELS = 64
STRIP = 1 << 20  # pixels that are looked at together
SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
GREY_AND_ALPHA = "LA;16B"  # of PNG
COLOURS = re.compile(r"(RGB[AX]?;16)([BLN])")


class Range(NamedTuple):
    """The stored values of a picture: all of them, and without the darkest and the brightest 0.1 % of the pixels."""

    low: int
    high: int
    dark: int
    bright: int


def window_of(depth: Depth, ranges: Sequence[Range]) -> Window | None:
    """What `ingest.depth` means for a set; None: as each file says, with all bits that it has."""
    if depth == "full" or not ranges:
        return None
    if depth == "used":
        return widened(min(one.low for one in ranges), max(one.high for one in ranges))
    return (0, (1 << depth) - 1) if isinstance(depth, int) else depth


def widened(low: int, high: int) -> Window:
    """The range on coarse steps, so that it takes 255 levels at least where the values do."""
    step = max(1, (1 << (high - low).bit_length()) // STEPS)
    return low // step * step, min(VALUES, (high // step + 1) * step) - 1


def remarks(depth: Depth, window: Window | None, ranges: Sequence[Range]) -> list[str]:
    """What to say of a set: how its values become grey levels, and what is lost by that."""
    if not ranges:
        return []
    low, high = min(one.low for one in ranges), max(one.high for one in ranges)
    how = f"{window[0]:,} is black and {window[1]:,} white" if window else "all bits of the file count"
    shown = list(depth) if isinstance(depth, tuple) else depth
    said = [
        f"{len(ranges):,} pictures have more than 8 bits, with values from {low:,} to {high:,}; "
        f"ingest.depth is {shown}: {how}"
    ]
    if window and (low < window[0] or high > window[1]):
        beyond = sum(one.low < window[0] or one.high > window[1] for one in ranges)
        said.append(
            f"WARNING: values of {beyond:,} of them lie beyond that and are cut off: ingest.depth: used keeps all"
        )
    kept = median(levels(one, window) for one in ranges)
    if kept < FEW_LEVELS and kept < median(one.bright - one.dark + 1 for one in ranges) / 2:
        dark, bright = min(one.dark for one in ranges), max(one.bright for one in ranges)
        used, close = (
            widened(low, high),
            widened(int(median(one.dark for one in ranges)), int(median(one.bright for one in ranges))),
        )
        better = median(levels(one, used) for one in ranges)
        advice = "used" if better >= 2 * kept else str(list(close))
        said.append(
            f"WARNING: half of them keep {kept:.0f} of 256 grey levels or fewer: most of their values lie between "
            f"{dark:,} and {bright:,}. Set ingest.depth to {advice}"
        )
    return said


def levels(one: Range, window: Window | None) -> int:
    """Grey levels between a picture's dark and bright values."""
    lut = table(window or (0, VALUES - 1))
    return int(lut[one.bright]) - int(lut[one.dark]) + 1


@functools.lru_cache(maxsize=64)
def table(window: Window) -> npt.NDArray[np.uint8]:
    """(65536,): the grey of each stored value."""
    low, high = window
    greys = (np.arange(VALUES) - low) * 256 // (high + 1 - low)
    return greys.clip(0, 255).astype(np.uint8)


def grey(image: Image.Image, window: Window | None) -> tuple[Image.Image, Range | None]:
    """A picture of mode I with values below 65,536 as one of mode L; with no window in its own range, which is given
    back."""
    values = None
    if window is None:
        counts = np.zeros(VALUES, np.int64)
        for box in strips(image.size):
            counts += np.bincount(np.asarray(image.crop(box)).ravel(), minlength=VALUES)
        values = range_of(counts)
        window = values.low, values.high
    return image.point(table(window).tolist(), "L"), values


def colour(high: Image.Image, low: Image.Image, window: Window | None) -> Range | None:
    """Replaces the upper bytes `high` of a picture in colour by its 8 bits; `low` holds the lower bytes. Alpha stays.
    With no window in its own range, which is given back."""
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
    """Of how often each value occurs."""
    places = np.flatnonzero(counts)
    below = np.cumsum(counts)
    dark, bright = np.searchsorted(below, [below[-1] * 0.001, below[-1] * 0.999], side="right").clip(max=places[-1])
    return Range(int(places[0]), int(places[-1]), int(dark), int(bright))


class Tiles(NamedTuple):
    """What to set as the `tile` of an opened file, so that Pillow reads the upper or the lower bytes of its colours."""

    upper: list[Any]
    lower: list[Any]


def tiles_of(image: ImageFile) -> Tiles | None:
    """None where an opened file has no colours of 16 bits."""
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
    """The lower bytes of an opened file, in the bands in which Pillow gives the upper ones."""
    image.tile = tiles.lower
    image.load()
    if tiles.upper[0].args == GREY_AND_ALPHA:  # its four bytes came as red, green, blue and alpha
        return Image.merge("RGBA", [image.getchannel(1)] * 4)
    return image


def white_of(image: ImageFile) -> int:
    """The largest value that an opened file says it can hold: 12 bits in TIFF, any number in PPM, else 16 bits."""
    if image.format == "PPM" and image.tile and isinstance(image.tile[0].args, tuple):
        most = image.tile[0].args[-1]
        return most if isinstance(most, int) and image.tile[0].codec_name != "raw" else VALUES - 1
    return 4095 if getattr(image, "tag_v2", {}).get(258) == (12,) else VALUES - 1


def black_is_zero(data: bytes) -> bytes | None:
    """A TIFF file in which 0 means white and which Pillow would not turn round, marked as if 0 meant black; else None.

    Pillow does it for 1 to 8 bits, reads 16 as a negative, and knows no others."""
    if data[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return None
    changed: Any = metadata.changed_tiff(data, 262, 0, 1)
    bits, samples = metadata.tiff_numbers(data, 258), metadata.tiff_numbers(data, 277)
    return changed if changed and (max(bits, default=1) > 8 or max(samples, default=1) > 1) else None
