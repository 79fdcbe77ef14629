"""Augmentation with fast.ai 0.7's three sets of transforms, drawn per picture and applied to a batch on the device.

NumPy draws the random numbers from a seed, so they do not depend on the device, the batch or the order of the pictures.
torchvision's transforms are not used, because they draw once per batch or run once per picture; here, one affine grid
per batch costs almost nothing. `geometry` converts the random numbers to positions in the picture.
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
    """The random numbers of n pictures, float32 (n,) each."""

    zoom: Floats  # 1 to max_zoom
    crop_x: Floats  # position of the square. 0: left edge, 1: right edge
    crop_y: Floats  # 0: top edge, 1: bottom edge
    angle: Floats  # radians
    flip: Floats  # -1: mirrored, 1: not
    quarter_turns: Floats  # 0 to 3
    brightness: Floats
    contrast: Floats
    max_angle: Floats  # radians: the limit of `angle`, equal for all pictures of a run

    def take(self, rows: npt.NDArray[np.int64]) -> "Draws":
        return Draws(*(column[rows] for column in self))


def draw(params: TransformsParams, n: int, seed: list[int]) -> Draws | None:
    """Draws for n pictures. Row i depends only on i and on `seed` (the seed, the stage, the epoch).

    Returns None if `params.kind` is none.
    """
    return _from_uniform(params, np.random.default_rng(seed).random((n, 9), dtype=np.float32))


def draw_each(params: TransformsParams, sha256s: Sequence[str], seed: list[int]) -> Draws | None:
    """Draws for each picture from `seed` and the content of the picture; other pictures and the order do not matter."""
    uniform = [np.random.default_rng([*seed, int(sha256, 16)]).random(9, dtype=np.float32) for sha256 in sha256s]
    return _from_uniform(params, np.reshape(uniform, (-1, 9)))


def _from_uniform(params: TransformsParams, u: Floats) -> Draws | None:
    """Converts uniform random numbers, float32 (n, 9), to augmentations.

    The probabilities are those of fast.ai 0.7: 3 of 4 pictures are rotated (RandomRotate p=0.75), half of them are
    mirrored, and the other transforms are always applied.
    """
    if params.kind == "none":
        return None
    angle = np.deg2rad(params.max_rotate_deg) * (2 * u[:, 3] - 1) * (u[:, 4] < 0.75)
    may_mirror = params.kind in ("side_on", "top_down")
    may_turn = params.kind == "top_down"
    contrast_change = params.max_lighting * (2 * u[:, 8] - 1)
    return Draws(
        zoom=1 + (params.max_zoom - 1) * u[:, 0],
        crop_x=u[:, 1],
        crop_y=u[:, 2],
        angle=angle.astype(np.float32),
        flip=np.where((u[:, 5] < 0.5) & may_mirror, np.float32(-1), np.float32(1)),
        quarter_turns=np.floor(4 * u[:, 6]) * may_turn,
        brightness=params.max_lighting * (2 * u[:, 7] - 1),
        contrast=np.where(contrast_change < 0, 1 + contrast_change, 1 / (1 - contrast_change)).astype(np.float32),
        max_angle=np.full(len(u), np.deg2rad(params.max_rotate_deg), np.float32),
    )


def sample(canvas: torch.Tensor, theta: torch.Tensor, size_px: int) -> torch.Tensor:
    """Rotates and mirrors a batch by bilinear sampling: float (n, 3, k, k) to (n, 3, size_px, size_px).

    `theta` (n, 2, 3): the affine map of each picture from the output to the canvas, in coordinates from -1 to 1 between
    the edges of both. The grid is computed by sums, because the matrix product of `affine_grid` takes as long as the
    sampling itself.
    """
    middles = (torch.arange(size_px, device=theta.device) + 0.5) * (2 / size_px) - 1
    to_right, down, start = theta.view(-1, 2, 3, 1, 1).unbind(2)
    grid = (to_right * middles) + (down * middles[:, None] + start)
    return F.grid_sample(canvas, grid.movedim(1, 3), padding_mode="border", align_corners=False)


def light(images: torch.Tensor, draws: Draws) -> torch.Tensor:
    """Changes the lighting of float (n, 3, s, s) in 0..1 as fast.ai 0.7 does.

    The contrast is changed about the picture's own mean, then the brightness; the result is clipped.

    Every picture is computed, even if its lighting does not change, because the result of a picture must not depend on
    the other pictures in its batch.
    """
    values = np.stack([draws.brightness, draws.contrast], axis=1).astype(np.float32)
    brightness, contrast = torch.from_numpy(values).to(images.device).view(-1, 2, 1, 1, 1).unbind(1)
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return ((images - mean) * contrast + mean + brightness).clamp(0, 1)
