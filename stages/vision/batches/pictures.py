"""Batches of resized pictures on the device. Threads crop them to squares; for a GPU, ahead of the network."""

import io
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional as F

from stages.runtime.threads import map_lots, threads
from stages.training.compute.batches import Batch, Order
from stages.training.compute.device import Compute
from stages.vision.batches.geometry import Geometry, bounding_box_ratio, geometry, window
from stages.vision.batches.network_input import Pixels, cut_square, load_scaled
from stages.vision.batches.preprocessing import Backbone
from stages.vision.batches.transforms import Draws, light, sample

PICTURES_AHEAD = 64  # pictures that are cropped as one chunk; at the end of a chunk, cores wait for its last picture
LOT_SIZE = 4  # pictures that a thread crops at a time


class Store(Protocol):
    """Source of the bytes of resized pictures: shards or memory."""

    def blob(self, sha256: str) -> bytes: ...


class Patch(NamedTuple):
    """The pixels around an augmented square, uint8 (h, w, c), resized to the scale of the output.

    `linear` (2, 2) and `centre` (2,) are the affine map from positions in the output, relative to its centre, to
    positions in `pixels`.
    """

    pixels: torch.Tensor
    linear: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]

    def theta(self, size_px: int, side: int) -> npt.NDArray[np.float32]:
        """Returns the map in the form of `affine_grid`, float32 (2, 3), for `pixels` in the upper left corner of a
        canvas of `side` x `side` pixels."""
        return np.column_stack([self.linear * size_px / side, 2 * self.centre / side - 1]).astype(np.float32)


def canvas_px(size_px: int, max_angle: float) -> int:
    """Returns the side of a canvas that is large enough for every patch.

    It is the same for every batch, because the last bits of a picture depend on it.
    """
    max_ratio = bounding_box_ratio(min(max_angle, math.pi / 4))
    return math.ceil(size_px * max_ratio) + 5  # a patch is wider by 2 pixels and a few roundings


@dataclass(frozen=True)
class Pictures:
    """The listed pictures of a store at one size.

    Every batch has the same shape, because the last batch is padded: so a picture's result does not depend on the
    number of pictures.
    """

    store: Store
    sha256s: list[str]
    backbone: Backbone
    size_px: int
    batch_size: int
    compute: Compute

    def __len__(self) -> int:
        return len(self.sha256s)

    def n_batches(self) -> int:
        return -(-len(self) // self.batch_size)

    def batches(self, order: Order | None = None, draws: Draws | None = None) -> Iterator[Batch]:
        """Yields all pictures in `order` (default: as listed), plain or augmented by row i of `draws` for picture i."""
        rows = np.arange(len(self)) if order is None else order
        n_cut = max(1, PICTURES_AHEAD // self.batch_size) * self.batch_size
        pending: deque[tuple[Order, Iterator[Any]]] = deque()
        cut = self.cut if draws is None else partial(self.cut_augmented, draws=draws)
        # On the CPU the network uses the same cores: cropping ahead would cost a sixth of its speed and gain nothing.
        n_ahead = 0 if self.compute.device.type == "cpu" else 1
        with threads() as pool:
            for chunk in [*(rows[start : start + n_cut] for start in range(0, len(rows), n_cut)), *[None] * n_ahead]:
                if chunk is not None:
                    pending.append((chunk, map_lots(pool, cut, chunk.tolist(), LOT_SIZE)))
                if len(pending) > n_ahead or (chunk is None and pending):
                    chunk_rows, results = pending.popleft()
                    cut_chunk = list(results)
                    for start in range(0, len(chunk_rows), self.batch_size):
                        batch = slice(start, start + self.batch_size)
                        yield self._batch(chunk_rows[batch], cut_chunk[batch], draws)

    def cut(self, row: int) -> torch.Tensor:
        """Returns the plain square of one picture, uint8 (s, s, 3), cropped in whole pixels and then resized."""
        pixels = cut_square(self.store.blob(self.sha256s[row]), self.backbone.crop_pct, self.size_px)
        return self._resized(pixels, self.size_px, self.size_px).expand(-1, -1, 3)

    def cut_augmented(self, row: int, draws: Draws) -> Patch:
        """Returns the input of `sample` for one picture: the pixels around the augmented square."""
        zoom, x, y, angle, flip, turns = (
            float(column[row])
            for column in (draws.zoom, draws.crop_x, draws.crop_y, draws.angle, draws.flip, draws.quarter_turns)
        )
        jpeg, crop_pct, size_px = self.store.blob(self.sha256s[row]), self.backbone.crop_pct, self.size_px
        if angle == 0:  # without rotation, whole pixels are cropped as in the plain square
            mapping = Geometry(size_px, (size_px / 2, size_px / 2), 1, 0, flip, turns)
            resized = self._resized(cut_square(jpeg, crop_pct, size_px, zoom, x, y), size_px, size_px)
            return Patch(resized, mapping.linear(), np.array(mapping.centre))
        with Image.open(io.BytesIO(jpeg)) as image:
            mapping = geometry(*image.size, size_px, crop_pct, zoom, x, y, angle, flip, turns)
            scales = np.array(load_scaled(image, mapping.scale * size_px, size_px))
            centre, extent = mapping.centre * scales, mapping.half_extent() * scales
            x_window, y_window = (
                window(centre_i - extent_i, centre_i + extent_i, length, 1 / (mapping.scale * scale))
                for centre_i, extent_i, length, scale in zip(centre, extent, image.size, scales, strict=True)
            )
            box = (x_window.read_start, y_window.read_start, x_window.read_stop, y_window.read_stop)
            pixels = np.atleast_3d(np.array(image.crop(box)))
        resized = self._resized(pixels, y_window.n_resized, x_window.n_resized)
        rows, columns = (torch.from_numpy(axis.pixels()) for axis in (y_window, x_window))
        patch = resized.index_select(0, rows).index_select(1, columns)
        linear = mapping.linear() * (scales * (x_window.scale, y_window.scale))[:, None]
        return Patch(patch, linear, np.array([x_window.to_window(centre[0]), y_window.to_window(centre[1])]))

    def _resized(self, pixels: Pixels, height: int, width: int) -> torch.Tensor:
        """Returns uint8 (height, width, c): the same bytes as `network_input.resample`, 60 times as fast with AVX2."""
        planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # a grey picture has one plane
        cut = F.interpolate(planes, (height, width), mode=self.backbone.interpolation, antialias=True)[0]
        return cut.permute(1, 2, 0)

    def _plain(self, cut: list[torch.Tensor], padding: int) -> torch.Tensor:
        stacked = self.compute.to_device_async(torch.stack([*cut, *[cut[-1]] * padding]))
        return stacked.permute(0, 3, 1, 2).float().div_(255)

    def _augmented(self, patches: list[Patch], padding: int, draws: Draws) -> torch.Tensor:
        side = canvas_px(self.size_px, float(draws.max_angle[0]))
        canvas = torch.zeros(self.batch_size, 3, side, side, dtype=torch.uint8)
        padded = [*patches, *[patches[-1]] * padding]
        for index, patch in enumerate(padded):
            height, width, _ = patch.pixels.shape
            canvas[index, :, :height, :width] = patch.pixels.permute(2, 0, 1)
        theta = torch.from_numpy(np.stack([patch.theta(self.size_px, side) for patch in padded]))
        images = sample(self.compute.to_device_async(canvas).float(), self.compute.to_device_async(theta), self.size_px)
        return light(images.div_(255), draws)

    def _batch(self, rows: Order, cut: list[Any], draws: Draws | None) -> Batch:
        padding = self.batch_size - len(rows)
        padded = np.concatenate([rows, np.repeat(rows[-1:], padding)])
        images = self._plain(cut, padding) if draws is None else self._augmented(cut, padding, draws.take(padded))
        # Each row of pixels is normalised as one vector: five times as fast as broadcasting over a pixel's channels.
        mean, std = (
            torch.tensor(v * self.size_px, device=self.compute.device) for v in (self.backbone.mean, self.backbone.std)
        )
        lines = images.permute(0, 2, 3, 1).flatten(2).sub_(mean).div_(std)
        return Batch(lines.view(-1, self.size_px, self.size_px, 3).permute(0, 3, 1, 2), padded, padding)
