"""Augmentation: fast.ai 0.7's three sets, drawn per picture from a seed, applied to a whole batch on the device.

NumPy draws the random numbers, so they do not depend on the device, the batch or the order of the pictures.
torchvision's transforms draw once per batch or run once per picture; one affine grid per batch costs almost nothing.
`geometry` maps the draws to pixels.
"""

from collections.abc import Sequence
from typing import Annotated, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch.nn import functional as F

from stages.runtime.params import Fraction, Section

Floats = npt.NDArray[np.float32]


class TransformsParams(Section):
    kind: Literal["none", "basic", "side_on", "top_down"]
    max_zoom: Annotated[float, Field(ge=1, le=10)]
    max_rotate_deg: Annotated[float, Field(ge=0, le=180)]
    max_lighting: Fraction


class Draws(NamedTuple):
    """One row per picture, float32 (n,)."""

    zoom: Floats  # 1 to max_zoom
    place_x: Floats  # position of the square, 0 (left) to 1 (right)
    place_y: Floats
    angle: Floats  # radians
    flip: Floats  # 1 or -1: mirrored
    quarter_turns: Floats  # 0 to 3
    brightness: Floats
    contrast: Floats
    max_angle: Floats  # radians: the limit of `angle`, equal for all pictures of a run

    def take(self, rows: npt.NDArray[np.int64]) -> "Draws":
        return Draws(*(column[rows] for column in self))


def draw(params: TransformsParams, n: int, key: list[int]) -> Draws | None:
    """Draw for n pictures from the key (seed, stage, epoch): row i depends on nothing else. None: no augmentation."""
    return _drawn(params, np.random.default_rng(key).random((n, 9), dtype=np.float32))


def draw_each(params: TransformsParams, sha256s: Sequence[str], key: list[int]) -> Draws | None:
    """Draw for each picture from the key and its own content: other pictures and the order do not matter."""
    each = [np.random.default_rng([*key, int(sha, 16)]).random(9, dtype=np.float32) for sha in sha256s]
    return _drawn(params, np.reshape(each, (-1, 9)))


def _drawn(params: TransformsParams, u: Floats) -> Draws | None:
    """Augmentations from uniform numbers, float32 (n, 9).

    Rates as in 0.7: rotation in 3 of 4 pictures (RandomRotate p=0.75), the others always; a mirror in half of them.
    """
    if params.kind == "none":
        return None
    angle = np.deg2rad(params.max_rotate_deg) * (2 * u[:, 3] - 1) * (u[:, 4] < 0.75)
    mirrored = params.kind in ("side_on", "top_down")
    turned = params.kind == "top_down"
    c = params.max_lighting * (2 * u[:, 8] - 1)
    return Draws(
        zoom=1 + (params.max_zoom - 1) * u[:, 0],
        place_x=u[:, 1],
        place_y=u[:, 2],
        angle=angle.astype(np.float32),
        flip=np.where((u[:, 5] < 0.5) & mirrored, np.float32(-1), np.float32(1)),
        quarter_turns=np.floor(4 * u[:, 6]) * turned,
        brightness=params.max_lighting * (2 * u[:, 7] - 1),
        contrast=np.where(c < 0, 1 + c, 1 / (1 - c)).astype(np.float32),
        max_angle=np.full(len(u), np.deg2rad(params.max_rotate_deg), np.float32),
    )


def sample(canvas: torch.Tensor, theta: torch.Tensor, size_px: int) -> torch.Tensor:
    """Rotate and mirror a batch, bilinear: float (n, 3, k, k) to (n, 3, size_px, size_px).

    `theta` (n, 2, 3): the affine map of each, from the output to the canvas, both -1 to 1 from edge to edge. The grid
    is computed by sums: the matrix product of `affine_grid` takes as long as the sampling itself.
    """
    middles = (torch.arange(size_px, device=theta.device) + 0.5) * (2 / size_px) - 1
    to_right, down, start = theta.view(-1, 2, 3, 1, 1).unbind(2)
    grid = (to_right * middles) + (down * middles[:, None] + start)
    return F.grid_sample(canvas, grid.movedim(1, 3), padding_mode="border", align_corners=False)


def light(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Lighting as 0.7: contrast about the picture's own mean, then brightness, clipped: float (n, 3, s, s) in 0..1.

    It is applied to every picture, even if nothing changes: a picture's result must not depend on the others in its
    batch.
    """
    values = np.stack([draws.brightness, draws.contrast], axis=1).astype(np.float32)
    brightness, contrast = torch.from_numpy(values).to(images.device).view(-1, 2, 1, 1, 1).unbind(1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)
