"""A picture file as the stage `resize` keeps it, and as prediction makes it too."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from stages.vision.files import images

if TYPE_CHECKING:  # the app, which has neither pydantic's models nor ruamel, prepares pictures by it too
    from stages.vision.batches.preprocessing import ResizeParams


def resized(data: bytes, params: ResizeParams, max_pixels: int) -> bytes:
    """A picture file's bytes as those of a JPEG: upright, shorter side `size_px`, grey where the picture is.

    A grey JPEG decodes to the very values of one in colour, in half the time.

    Raises:
        BadPictureError, MemoryError: as `images.decode`.
    """
    image = images.decode(data, max_pixels, draft_px=params.size_px)
    image = images.resize_shorter(image, params.size_px)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=params.jpeg_quality, subsampling=0)
    return buffer.getvalue()
