"""Thumbnails for finding near duplicates. Ingest stores one per picture; near_duplicates compares them."""

import numpy as np
from PIL import Image

from stages.dataset.splitting.near_duplicates import SIDE

CELL_PX = 4  # a pixel of the thumbnail is the sum of a square with this side
LEVELS_PER_STD = 32  # one standard deviation is this number in int8
MIN_CONTRAST = 1  # in grey levels; a picture whose standard deviation is smaller shows only noise


def thumbnail(image: Image.Image) -> bytes:
    """Returns 16 x 16 int8, row by row: the grey picture minus its mean, scaled to a fixed contrast.

    The result is b"" if the picture is flat.

    The thumbnail does not depend on brightness, contrast, size, colour and JPEG noise. It has the same bytes on every
    machine, because it is computed with integers and single roundings.
    """
    grey = image.convert("L").resize((SIDE * CELL_PX, SIDE * CELL_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    cells = np.asarray(grey, np.int64).reshape(SIDE, CELL_PX, SIDE, CELL_PX).sum((1, 3))
    centred = cells * cells.size - cells.sum()
    sum_of_squares = int((centred**2).sum())
    one_level = cells.size * CELL_PX**2
    if sum_of_squares < cells.size * (MIN_CONTRAST * one_level) ** 2:
        return b""
    scaled = centred * LEVELS_PER_STD / np.sqrt(sum_of_squares / cells.size)
    return bytes(np.rint(scaled).clip(-127, 127).astype(np.int8))
