"""A picture file as the stage `resize` keeps it, and as prediction makes it too."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from stages.vision.files import images

if TYPE_CHECKING:  # the app, which has neither pydantic's models nor ruamel, prepares pictures by it too
    from stages.vision.batches.preprocessing import Resizing


def resized(data: bytes, params: Resizing, max_pixels: int) -> bytes:
    """A picture file's bytes as those of a JPEG: upright, shorter side `size_px`, grey where the picture is.

    A grey JPEG decodes to the very values of one in colour, in half the time.

    Raises:
        BadPictureError, MemoryError: as `images.decode`.
    """
    depth = getattr(params, "depth", None)  # the app's, of a model.json, has none where no picture had more than 8 bits
    image = images.decode(data, max_pixels, draft_px=params.size_px, window=tuple(depth) if depth else None)
    image = images.resize_shorter(image, params.size_px)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=params.jpeg_quality, subsampling=0)
    return buffer.getvalue()
