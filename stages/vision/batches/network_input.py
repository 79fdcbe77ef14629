"""Converts a resized JPEG to the network's input, with only Pillow and NumPy.

`resized` and this module are the whole preprocessing. The stage export copies them beside the example, so they import
nothing else of the project. `resample` gives the same bytes as torch's uint8 kernel, which training uses for speed.
"""

import io
import math
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels
Pixels = npt.NDArray[np.uint8]
WEIGHT_LIMIT = 1 << 15  # weights are stored as int16
MAX_FRACTION_BITS = 22  # the fraction of a weight has at most this many bits


def square(width: int, height: int, zoom: float, crop_x: float, crop_y: float) -> Box:
    """Returns the box of a square whose side is the picture's shorter side / zoom.

    `crop_x`, `crop_y`: the position of the square. 0: left or top edge, 1: right or bottom.
    """
    side = min(width, height) / zoom
    left, top = crop_x * (width - side), crop_y * (height - side)
    return left, top, min(left + side, width), min(top + side, height)


def load_scaled(image: Image.Image, side: float, min_px: int | None) -> tuple[float, float]:
    """Decodes an opened JPEG, for speed at 1/2, 1/4 or 1/8 of its size if `side` of its pixels are then still
    `min_px` or more.

    Returns the scale of the decoded picture in x and y: 1 or less.
    """
    width, height = image.size
    if min_px is not None:
        image.draft(None, (math.ceil(width * min_px / side), math.ceil(height * min_px / side)))
    image.load()
    return image.width / width, image.height / height


def cut_square(
    jpeg: bytes,
    crop_pct: float,
    min_px: int | None = None,
    zoom: float = 1,
    crop_x: float = 0.5,
    crop_y: float = 0.5,
) -> Pixels:
    """Returns a square in whole pixels of the decoded picture: uint8 (h, w, 3), or (h, w, 1) of a grey picture.

    The square is at least `min_px` wide, if the file has so many pixels. By default the picture is decoded in full
    size.
    """
    with Image.open(io.BytesIO(jpeg)) as image:
        box = square(*image.size, zoom / crop_pct, crop_x, crop_y)
        scales = load_scaled(image, box[2] - box[0], min_px) * 2
        left, top, right, bottom = (round(edge * scale) for edge, scale in zip(box, scales, strict=True))
        left, top = min(left, image.width - 1), min(top, image.height - 1)  # a square below one pixel gives that pixel
        return np.atleast_3d(np.array(image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))))


def network_input(jpeg: bytes, preprocessing: dict[str, Any]) -> Pixels:
    """Returns the centre square of a picture that `resized` has made: uint8 (3, s, s), RGB.

    `preprocessing`: the entry of this name in model.json.
    """
    size_px = preprocessing["square"]["size_px"]
    pixels = cut_square(jpeg, preprocessing["centre_crop"]["share_of_shorter_side"], size_px)
    pixels = resample(pixels, size_px, preprocessing["square"]["interpolation"])
    return rgb(pixels).transpose(2, 0, 1)


def rgb(pixels: Pixels) -> Pixels:
    """Returns pixels of the shape (h, w, 1) or (h, w, 3) in the shape (h, w, 3)."""
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def resample(pixels: Pixels, size_px: int, interpolation: str) -> Pixels:
    """Resizes uint8 (h, w, c) to (size_px, size_px, c) with antialiasing. `interpolation`: bilinear or bicubic.

    It is Pillow's algorithm with weights of 16 bits, as in torch: `interpolate(..., antialias=True)`. The width is
    resized first; a side of the right size is not resampled.
    """
    for axis in (1, 0):
        if pixels.shape[axis] == size_px:
            continue
        source = np.moveaxis(pixels, axis, 0).astype(np.int32)
        positions, weights, bits = taps(len(source), size_px, interpolation)
        total = np.full((size_px, *source.shape[1:]), 1 << (bits - 1), np.int32)  # to round instead of truncate
        for position, weight in zip(positions, weights, strict=True):
            total += source[position] * weight[:, None, None]
        pixels = np.moveaxis((total >> bits).clip(0, 255).astype(np.uint8), 0, axis)
    return pixels


def taps(n_in: int, n_out: int, interpolation: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]:
    """Returns (positions, weights, bits): the source pixels of each output pixel and their weights, both of the shape
    (taps, n_out). The weights are in units of 2**-bits.

    Each operation rounds as in torch (compute_index_ranges_int16_weights), so their order matters.
    """
    scale = n_in / n_out
    filter_scale = max(scale, 1.0)
    support = filter_scale * (2 if interpolation == "bicubic" else 1)
    centre = scale * (np.arange(n_out) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    stop = np.minimum((centre + support + 0.5).astype(np.int64), n_in)
    positions = first + np.arange(2 * math.ceil(support) + 1)[:, None]
    kernel = cubic if interpolation == "bicubic" else triangle
    exact_weights = np.where(positions < stop, kernel(np.abs(positions - centre + 0.5) * (1 / filter_scale)), 0.0)
    total = np.zeros(n_out)
    for tap_weights in exact_weights:  # np.sum adds in another order
        total += tap_weights
    exact_weights /= total
    max_weight, bits = exact_weights.max(), 0
    while bits < MAX_FRACTION_BITS and int(0.5 + max_weight * (1 << (bits + 1))) < WEIGHT_LIMIT:
        bits += 1
    weights = np.trunc(exact_weights * (1 << bits) + np.copysign(0.5, exact_weights)).astype(np.int32)
    return np.minimum(positions, n_in - 1), weights, bits


def triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def cubic(x: npt.NDArray[np.float64], a: float = -0.5) -> npt.NDArray[np.float64]:
    """Returns the kernel at distances x >= 0. a is -0.5 as in Pillow, and as in torch with antialiasing."""
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
