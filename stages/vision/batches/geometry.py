"""Position of the network's square in its picture: crop, zoom, rotation, mirroring and quarter turns in one map.

fast.ai 0.7 scales the whole picture, rotates it about its centre (filling by reflection), mirrors it, and crops
last. So a corner of the square shows the picture's own pixels, and reflected ones only outside the picture. Here the
square is rotated about its own centre instead: the same result if both centres coincide. Elsewhere in a long picture
0.7 moves the square along a circle; here it stays in the picture, with less reflection.
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

    Coordinates are (x, y) in pixels, to the right and down, from the corner of the upper left pixel: its middle is at
    (0.5, 0.5). Positions in the input may lie outside the picture, the output shows a reflection there.
    """

    size_px: int
    centre: tuple[float, float]  # of the square, in the input
    pixel: float  # side of an output pixel, in input pixels
    angle: float  # radians; of the square in the picture, from x to y: clockwise on a screen
    flip: float = 1  # -1: the output is mirrored, left to right
    quarter_turns: float = 0  # of the output, anticlockwise on a screen: as np.rot90

    def linear(self) -> Points:
        """float64 (2, 2): the columns are one output pixel to the right, and one down, in input pixels."""
        angle = self.angle + math.pi / 2 * self.quarter_turns
        cos, sin = math.cos(angle), math.sin(angle)
        return self.pixel * np.array([[cos * self.flip, -sin], [sin * self.flip, cos]])

    def to_input(self, points: npt.ArrayLike) -> Points:
        """Positions in the output, (n, 2), to positions in the input."""
        return (np.asarray(points, np.float64) - self.size_px / 2) @ self.linear().T + self.centre

    def to_output(self, points: npt.ArrayLike) -> Points:
        """Positions in the input, (n, 2), to positions in the output: values outside 0 to size_px are not shown."""
        return (np.asarray(points, np.float64) - self.centre) @ np.linalg.inv(self.linear()).T + self.size_px / 2

    def reach(self) -> float:
        """How far from its centre, in x and in y, input pixels are needed: to the middle of the outermost output
        pixels, and an output pixel further, as bilinear sampling takes part of the next."""
        return self.pixel / 2 * ((self.size_px - 1) * tilt(self.angle) + 2)


def tilt(angle: float) -> float:
    """Side of the upright square around a rotated one, relative to the latter's side."""
    return abs(math.cos(angle)) + abs(math.sin(angle))


def geometry(
    width: int, height: int, size_px: int, crop_pct: float, zoom: float = 1, place_x: float = 0.5, place_y: float = 0.5,
    angle: float = 0, flip: float = 1, quarter_turns: float = 0,
) -> Geometry:  # fmt: skip
    """The geometry of an augmented square in a picture of `width` x `height` pixels; by default the plain centre crop.

    An unrotated square is cropped in whole pixels of the decoded picture, so it may be off by up to half a pixel.
    """
    left, top, right, bottom = square(width, height, zoom / crop_pct, place_x, place_y)
    centre = ((left + right) / 2, (top + bottom) / 2)
    return Geometry(size_px, centre, (right - left) / size_px, angle, flip, quarter_turns)


@dataclass(frozen=True)
class Window:
    """Along one axis: the pixels to read, the number to resize them to, and which of those the square needs.

    A `start` below 0 or a `stop` above `n` lies outside the picture, by less than `n`.
    """

    first: int
    last: int
    n: int
    start: int
    stop: int

    def position(self, in_picture: float) -> float:
        """A position in the picture as one in the window."""
        return (in_picture - self.first) * self.rate - self.start

    def pixels(self) -> npt.NDArray[np.int64]:
        """Indexes of the resized pixels in the window, 0 to n - 1, reflected at the picture's edge."""
        places = np.arange(self.start, self.stop)
        places = np.where(places < 0, -1 - places, places)
        return np.where(places >= self.n, 2 * self.n - 1 - places, places)

    @property
    def rate(self) -> float:
        """Resized pixels per pixel that is read."""
        return self.n / (self.last - self.first)


def window(low: float, high: float, length: int, rate: float) -> Window:
    """The window from `low` to `high` on an axis of `length` pixels, resized by `rate`."""
    first, last = max(math.floor(low), 0), min(math.ceil(high), length)
    n = max(round((last - first) * rate), 1)
    rate = n / (last - first)
    return Window(first, last, n, math.floor((low - first) * rate), math.ceil((high - first) * rate))
