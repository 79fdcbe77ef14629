"""Overlays Grad-CAM's heat map on a picture, without torch."""

import numpy as np
import numpy.typing as npt
from PIL import Image

HOT = np.array([[0, 0, 128], [0, 128, 255], [128, 255, 128], [255, 160, 0], [200, 0, 0]], np.float32)  # cold to hot


def overlay(square: Image.Image, heat: npt.NDArray[np.float32], opacity: float = 0.55) -> Image.Image:
    """`heat` (h, w), 0 to 1, drawn over its RGB square; the higher the heat, the less the picture shows through."""
    fine = Image.fromarray(heat.astype(np.float32)).resize(square.size, Image.Resampling.BICUBIC)
    hot = np.asarray(fine).clip(0, 1)
    colours = np.stack([np.interp(hot, np.linspace(0, 1, len(HOT)), channel) for channel in HOT.T], axis=-1)
    alpha = opacity * np.sqrt(hot)[..., None]
    return Image.fromarray((np.asarray(square) * (1 - alpha) + colours * alpha).round().astype(np.uint8))
