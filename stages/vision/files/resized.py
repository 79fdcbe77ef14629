"""Converts a picture file to a resized JPEG, for the stage `resize` and for prediction."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from stages.vision.files import images

if TYPE_CHECKING:  # the app, which has neither pydantic nor ruamel, uses this module too
    from stages.vision.batches.preprocessing import Resizing


def resized(data: bytes, params: Resizing, max_pixels: int) -> bytes:
    """Converts a picture file to an upright JPEG with shorter side `size_px`, grey if the picture is grey.

    A grey JPEG decodes to the same values as a JPEG in colour, in half the time.

    Raises:
        BadPictureError, MemoryError: as `images.decode`.
    """
    depth = getattr(params, "depth", None)  # model.json has none if no picture had more than 8 bits
    image = images.decode(data, max_pixels, draft_px=params.size_px, window=tuple(depth) if depth else None)
    image = images.resize_shorter(image, params.size_px)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=params.jpeg_quality, subsampling=0)
    return buffer.getvalue()
