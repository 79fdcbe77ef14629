"""Thumbnails for finding near duplicates: ingest stores one per picture, near_duplicates compares them."""

import numpy as np
from PIL import Image

from stages.dataset.splitting.near_duplicates import SIDE

CELL = 4
STEPS = 32  # of int8 for one standard deviation
LEAST_CONTRAST = 1  # standard deviation in grey levels; below it there is only noise


def thumbnail(image: Image.Image) -> bytes:
    """16 x 16 int8, row by row: grey, minus its mean, scaled to a fixed contrast; b"" if it is flat.

    Removes brightness, contrast, size, colour and JPEG noise. Uses only integers and single roundings: the same bytes
    on every machine.
    """
    grey = image.convert("L").resize((SIDE * CELL, SIDE * CELL), Image.Resampling.BILINEAR, reducing_gap=2.0)
    cells = np.asarray(grey, np.int64).reshape(SIDE, CELL, SIDE, CELL).sum((1, 3))
    centred = cells * cells.size - cells.sum()
    squares = int((centred**2).sum())
    one_level = cells.size * CELL**2
    if squares < cells.size * (LEAST_CONTRAST * one_level) ** 2:
        return b""
    scaled = centred * STEPS / np.sqrt(squares / cells.size)
    return bytes(np.rint(scaled).clip(-127, 127).astype(np.int8))
