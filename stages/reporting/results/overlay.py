"""Overlays Grad-CAM's heat map on a picture, without torch."""

import numpy as np
import numpy.typing as npt
from PIL import Image

# RGB, from low to high heat
HEAT_COLOURS = np.array([[0, 0, 128], [0, 128, 255], [128, 255, 128], [255, 160, 0], [200, 0, 0]], np.float32)


def overlay(square: Image.Image, heat: npt.NDArray[np.float32], opacity: float = 0.55) -> Image.Image:
    """Draws `heat` (h, w), 0 to 1, over its RGB square. The higher the heat, the less of the picture is visible."""
    resized = Image.fromarray(heat.astype(np.float32)).resize(square.size, Image.Resampling.BICUBIC)
    values = np.asarray(resized).clip(0, 1)
    positions = np.linspace(0, 1, len(HEAT_COLOURS))
    colours = np.stack([np.interp(values, positions, channel) for channel in HEAT_COLOURS.T], axis=-1)
    alpha = opacity * np.sqrt(values)[..., None]
    return Image.fromarray((np.asarray(square) * (1 - alpha) + colours * alpha).round().astype(np.uint8))
