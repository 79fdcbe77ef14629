"""Thumbnails that tell whether two pictures show the same: what ingest keeps of each, and near_duplicates compares."""

import numpy as np
from PIL import Image

from stages.dataset.splitting.near_duplicates import SIDE

CELL = 4
STEPS = 32  # of int8 for one standard deviation
LEAST_CONTRAST = 1  # standard deviation in grey levels; below it there is nothing but noise


def thumbnail(image: Image.Image) -> bytes:
    """16 x 16 int8, row by row: grey, its mean taken out, and scaled to one contrast; b"" where it is flat.

    Brightness, contrast, size and JPEG's noise are gone, colour too. Integers and single roundings alone: the same
    bytes on every machine.
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
