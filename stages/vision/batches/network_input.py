"""From a resized JPEG to the network's input, with only Pillow and NumPy.

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
WEIGHT_LIMIT = 1 << 15  # weights are int16
MAX_BITS = 22  # of a weight's fraction


def square(width: int, height: int, zoom: float, place_x: float, place_y: float) -> Box:
    """The box of a square of the shorter side / zoom; a place of 0 is the left or top edge, 1 the right or bottom."""
    side = min(width, height) / zoom
    left, top = place_x * (width - side), place_y * (height - side)
    return left, top, min(left + side, width), min(top + side, height)


def load_scaled(image: Image.Image, side: float, enough_px: int | None) -> tuple[float, float]:
    """Decode an opened JPEG, at 1/2, 1/4 or 1/8 of its size if `side` pixels remain `enough_px` or more: faster.

    Returns the scale of the decoded picture in x and y: 1 or less.
    """
    width, height = image.size
    if enough_px is not None:
        image.draft(None, (math.ceil(width * enough_px / side), math.ceil(height * enough_px / side)))
    image.load()
    return image.width / width, image.height / height


def cut_square(
    jpeg: bytes,
    crop_pct: float,
    enough_px: int | None = None,
    zoom: float = 1,
    place_x: float = 0.5,
    place_y: float = 0.5,
) -> Pixels:
    """uint8 (h, w, 3), or (h, w, 1) of a grey picture: a square in whole pixels of the decoded picture, at least
    `enough_px` wide if the picture is; by default decoded in full size."""
    with Image.open(io.BytesIO(jpeg)) as image:
        box = square(*image.size, zoom / crop_pct, place_x, place_y)
        scales = load_scaled(image, box[2] - box[0], enough_px) * 2
        left, top, right, bottom = (round(edge * scale) for edge, scale in zip(box, scales, strict=True))
        left, top = min(left, image.width - 1), min(top, image.height - 1)  # a square below one pixel gives that pixel
        return np.atleast_3d(np.array(image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))))


def network_input(jpeg: bytes, preprocessing: dict[str, Any]) -> Pixels:
    """uint8 (3, s, s), RGB: the centre square of a picture that `resized` has made.

    `preprocessing`: the entry of model.json.
    """
    size_px = preprocessing["square"]["size_px"]
    pixels = cut_square(jpeg, preprocessing["centre_crop"]["share_of_shorter_side"], size_px)
    pixels = resample(pixels, size_px, preprocessing["square"]["interpolation"])
    return rgb(pixels).transpose(2, 0, 1)


def rgb(pixels: Pixels) -> Pixels:
    """(h, w, 1) or (h, w, 3) to (h, w, 3)."""
    return np.repeat(pixels, 3 // pixels.shape[2], axis=2)


def resample(pixels: Pixels, size_px: int, interpolation: str) -> Pixels:
    """uint8 (h, w, c) to (size_px, size_px, c), `bilinear` or `bicubic`, antialiased.

    Pillow's algorithm with weights of 16 bits, as in torch: `interpolate(..., antialias=True)`. Width first; a side of
    the right size is not resampled.
    """
    for axis in (1, 0):
        if pixels.shape[axis] == size_px:
            continue
        source = np.moveaxis(pixels, axis, 0).astype(np.int32)
        places, weights, bits = taps(len(source), size_px, interpolation)
        total = np.full((size_px, *source.shape[1:]), 1 << (bits - 1), np.int32)  # to round instead of truncate
        for place, weight in zip(places, weights, strict=True):
            total += source[place] * weight[:, None, None]
        pixels = np.moveaxis((total >> bits).clip(0, 255).astype(np.uint8), 0, axis)
    return pixels


def taps(n_in: int, n_out: int, interpolation: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], int]:
    """(places, weights, bits): source pixels and weights of each output pixel, (taps, n_out), in units of 2**-bits.

    Each step rounds as in torch (compute_index_ranges_int16_weights), so its order matters.
    """
    scale = n_in / n_out
    widen = max(scale, 1.0)
    reach = widen * (2 if interpolation == "bicubic" else 1)
    centre = scale * (np.arange(n_out) + 0.5)
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), n_in)
    places = first + np.arange(2 * math.ceil(reach) + 1)[:, None]
    kernel = cubic if interpolation == "bicubic" else triangle
    exact = np.where(places < end, kernel(np.abs(places - centre + 0.5) * (1 / widen)), 0.0)
    total = np.zeros(n_out)
    for row in exact:  # np.sum adds in another order
        total += row
    exact /= total
    most, bits = exact.max(), 0
    while bits < MAX_BITS and int(0.5 + most * (1 << (bits + 1))) < WEIGHT_LIMIT:
        bits += 1
    weights = np.trunc(exact * (1 << bits) + np.copysign(0.5, exact)).astype(np.int32)
    return np.minimum(places, n_in - 1), weights, bits


def triangle(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(1 - x, 0)


def cubic(x: npt.NDArray[np.float64], a: float = -0.5) -> npt.NDArray[np.float64]:
    """The kernel at distances x >= 0; a = -0.5 as in Pillow, and in torch with antialiasing."""
    near, far = ((a + 2) * x - (a + 3)) * x * x + 1, (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
