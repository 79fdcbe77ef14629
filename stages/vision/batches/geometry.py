"""The square of a picture that becomes the network's input: crop, zoom, rotation, mirroring and quarter turns as one
affine map.

fast.ai 0.7 scales the whole picture, rotates it about the centre of the picture, mirrors it, and crops the square last.
Because it crops after rotating, the corners of the square show pixels of the picture; only positions outside the
picture show reflected pixels.

This module rotates the square about its own centre instead. If the square is in the middle of the picture, the result
is the same. If it is not (a crop near the end of a long picture), fast.ai's rotation would move the square along a
circle, partly out of the picture; this one leaves it in place, so less reflection is needed.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stages.vision.batches.network_input import square

Points = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Geometry:
    """An affine map between the output, a square of `size_px` pixels, and the input, the picture it is taken from.

    Coordinates are (x, y) in pixels, to the right and down, from the picture's upper left corner, so the middle of the
    first pixel is (0.5, 0.5). Positions in the input may lie outside the picture; the output shows a reflection there.
    """

    size_px: int
    centre: tuple[float, float]  # centre of the square, in the input
    scale: float  # input pixels per output pixel
    angle: float  # rotation of the square in the picture, in radians, from x to y: clockwise on a screen
    flip: float = 1  # -1: the output is mirrored, left to right
    quarter_turns: float = 0  # rotation of the output, anticlockwise on a screen, as np.rot90

    def linear(self) -> Points:
        """Returns the map without its translation, float64 (2, 2).

        The first column is the vector in the input, in pixels, from an output pixel to the next one on its right; the
        second column is the vector to the next one below.
        """
        angle = self.angle + math.pi / 2 * self.quarter_turns
        cos, sin = math.cos(angle), math.sin(angle)
        return self.scale * np.array([[cos * self.flip, -sin], [sin * self.flip, cos]])

    def to_input(self, points: npt.ArrayLike) -> Points:
        """Converts positions in the output, (n, 2), to positions in the input."""
        return (np.asarray(points, np.float64) - self.size_px / 2) @ self.linear().T + self.centre

    def to_output(self, points: npt.ArrayLike) -> Points:
        """Converts positions in the input, (n, 2), to positions in the output.

        The output does not show positions outside 0 to size_px.
        """
        return (np.asarray(points, np.float64) - self.centre) @ np.linalg.inv(self.linear()).T + self.size_px / 2

    def half_extent(self) -> float:
        """Returns half the side of the upright box of input pixels that the rotated square is sampled from.

        The outermost positions that are sampled are the middles of the outermost output pixels. One output pixel is
        added, because bilinear sampling also uses the neighbours of a position.
        """
        return self.scale / 2 * ((self.size_px - 1) * bounding_box_ratio(self.angle) + 2)


def bounding_box_ratio(angle: float) -> float:
    """Returns the side of the upright bounding box of a rotated square, relative to the side of the square."""
    return abs(math.cos(angle)) + abs(math.sin(angle))


def geometry(
    width: int, height: int, size_px: int, crop_pct: float, zoom: float = 1, crop_x: float = 0.5, crop_y: float = 0.5,
    angle: float = 0, flip: float = 1, quarter_turns: float = 0,
) -> Geometry:  # fmt: skip
    """Returns the geometry of an augmented square in a picture of `width` x `height` pixels; by default the plain
    centre crop.

    `crop_x`, `crop_y`: the position of the square. 0: left or top edge, 1: right or bottom. An unrotated square is
    cropped in whole pixels of the decoded picture, so the crop may be off by up to half a pixel.
    """
    left, top, right, bottom = square(width, height, zoom / crop_pct, crop_x, crop_y)
    centre = ((left + right) / 2, (top + bottom) / 2)
    return Geometry(size_px, centre, (right - left) / size_px, angle, flip, quarter_turns)


@dataclass(frozen=True)
class Window:
    """Along one axis: read input pixels [read_start, read_stop), resize them to `n_resized` pixels, and use
    [need_start, need_stop) of the resized ones.

    `need_start` may be below 0 and `need_stop` above `n_resized`, by less than `n_resized`: these pixels are outside
    the picture.
    """

    read_start: int
    read_stop: int
    n_resized: int
    need_start: int
    need_stop: int

    def to_window(self, position: float) -> float:
        """Converts a position in the picture to a position in the window."""
        return (position - self.read_start) * self.scale - self.need_start

    def pixels(self) -> npt.NDArray[np.int64]:
        """Returns the index of the resized pixel for each position from need_start to need_stop.

        Positions outside the picture are reflected, so that all indexes are from 0 to n_resized - 1.
        """
        indexes = np.arange(self.need_start, self.need_stop)
        indexes = np.where(indexes < 0, -1 - indexes, indexes)
        return np.where(indexes >= self.n_resized, 2 * self.n_resized - 1 - indexes, indexes)

    @property
    def scale(self) -> float:
        """Resized pixels per input pixel."""
        return self.n_resized / (self.read_stop - self.read_start)


def window(low: float, high: float, length: int, scale: float) -> Window:
    """Returns the window from `low` to `high` on an axis of `length` pixels, resized by about `scale`."""
    read_start, read_stop = max(math.floor(low), 0), min(math.ceil(high), length)
    n_resized = max(round((read_stop - read_start) * scale), 1)
    scale = n_resized / (read_stop - read_start)
    need_start, need_stop = math.floor((low - read_start) * scale), math.ceil((high - read_start) * scale)
    return Window(read_start, read_stop, n_resized, need_start, need_stop)
