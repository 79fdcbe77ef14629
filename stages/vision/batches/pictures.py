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
from stages.vision.batches.geometry import Geometry, geometry, tilt, window
from stages.vision.batches.network_input import Pixels, cut_square, load_scaled
from stages.vision.batches.preprocessing import Backbone
from stages.vision.batches.transforms import Draws, light, sample

PICTURES_AHEAD = 64  # cropped before the network continues: at their end, cores wait for the last one
LOT_SIZE = 4  # pictures that a thread gets together


class Store(Protocol):
    """Source of the bytes of resized pictures: shards or memory."""

    def blob(self, sha256: str) -> bytes: ...


class Patch(NamedTuple):
    """Pixels around an augmented square, uint8 (h, w, c), at its scale, and the affine map (2, 2), (2,) from the
    output, relative to its centre, to positions in the pixels."""

    pixels: torch.Tensor
    linear: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]

    def theta(self, size_px: int, side: int) -> npt.NDArray[np.float32]:
        """float32 (2, 3): the map in the form of `affine_grid`, the pixels in the upper left of `side` x `side`."""
        return np.column_stack([self.linear * size_px / side, 2 * self.centre / side - 1]).astype(np.float32)


def canvas_px(size_px: int, max_angle: float) -> int:
    """Side of the canvas that holds every patch: the same for every batch, as a picture's last bits depend on it."""
    return math.ceil(size_px * tilt(min(max_angle, math.pi / 4))) + 5  # a patch is wider by 2 and a few roundings


@dataclass(frozen=True)
class Pictures:
    """The listed pictures of a store at one size. Every batch has the same shape: the last one is padded, so
    that a picture's result does not depend on how many there are."""

    store: Store
    sha256s: list[str]
    about: Backbone
    size_px: int
    batch_size: int
    compute: Compute

    def __len__(self) -> int:
        return len(self.sha256s)

    def n_batches(self) -> int:
        return -(-len(self) // self.batch_size)

    def batches(self, order: Order | None = None, draws: Draws | None = None) -> Iterator[Batch]:
        """All pictures in `order` (default: as listed), augmented by `draws` (row i belongs to picture i) or plain."""
        rows = np.arange(len(self)) if order is None else order
        n_cut = max(1, PICTURES_AHEAD // self.batch_size) * self.batch_size
        ahead: deque[tuple[Order, Iterator[Any]]] = deque()
        cut = self.cut if draws is None else partial(self.cut_drawn, draws=draws)
        # On the CPU the network uses the same cores: parallel threads cost a sixth of its speed and gain nothing.
        n_ahead = 0 if self.compute.device.type == "cpu" else 1
        with threads() as pool:
            for part in [*(rows[start : start + n_cut] for start in range(0, len(rows), n_cut)), *[None] * n_ahead]:
                if part is not None:
                    ahead.append((part, map_lots(pool, cut, part.tolist(), LOT_SIZE)))
                if len(ahead) > n_ahead or (part is None and ahead):
                    ready, results = ahead.popleft()
                    done = list(results)
                    for start in range(0, len(ready), self.batch_size):
                        batch = slice(start, start + self.batch_size)
                        yield self._batch(ready[batch], done[batch], draws)

    def cut(self, row: int) -> torch.Tensor:
        """uint8 (s, s, 3): the plain square of one picture, in whole pixels, with the weights' own interpolation."""
        pixels = cut_square(self.store.blob(self.sha256s[row]), self.about.crop_pct, self.size_px)
        return self._resized(pixels, self.size_px, self.size_px).expand(-1, -1, 3)

    def cut_drawn(self, row: int, draws: Draws) -> Patch:
        """The input of `sample` for one picture: the augmented square's surroundings, at its scale."""
        zoom, x, y, angle, flip, turns = (
            float(column[row])
            for column in (draws.zoom, draws.place_x, draws.place_y, draws.angle, draws.flip, draws.quarter_turns)
        )
        jpeg, crop_pct, size_px = self.store.blob(self.sha256s[row]), self.about.crop_pct, self.size_px
        if angle == 0:  # nothing to interpolate: whole pixels, as in the plain square
            straight = Geometry(size_px, (size_px / 2, size_px / 2), 1, 0, flip, turns)
            resized = self._resized(cut_square(jpeg, crop_pct, size_px, zoom, x, y), size_px, size_px)
            return Patch(resized, straight.linear(), np.array(straight.centre))
        with Image.open(io.BytesIO(jpeg)) as image:
            drawn = geometry(*image.size, size_px, crop_pct, zoom, x, y, angle, flip, turns)
            scales = np.array(load_scaled(image, drawn.pixel * size_px, size_px))
            centre, reach = drawn.centre * scales, drawn.reach() * scales
            across, down = (
                window(middle - far, middle + far, length, 1 / (drawn.pixel * scale))
                for middle, far, length, scale in zip(centre, reach, image.size, scales, strict=True)
            )
            pixels = np.atleast_3d(np.array(image.crop((across.first, down.first, across.last, down.last))))
        resized = self._resized(pixels, down.n, across.n)
        rows, columns = (torch.from_numpy(axis.pixels()) for axis in (down, across))
        patch = resized.index_select(0, rows).index_select(1, columns)
        linear = drawn.linear() * (scales * (across.rate, down.rate))[:, None]
        return Patch(patch, linear, np.array([across.position(centre[0]), down.position(centre[1])]))

    def _resized(self, pixels: Pixels, height: int, width: int) -> torch.Tensor:
        """uint8 (height, width, c). The same bytes as `network_input.resample`, 60 times as fast with AVX2."""
        planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)  # grey pictures have one
        cut = F.interpolate(planes, (height, width), mode=self.about.interpolation, antialias=True)[0]
        return cut.permute(1, 2, 0)

    def _plain(self, cut: list[torch.Tensor], padding: int) -> torch.Tensor:
        stacked = self.compute.to_device_async(torch.stack([*cut, *[cut[-1]] * padding]))
        return stacked.permute(0, 3, 1, 2).float().div_(255)

    def _drawn(self, patches: list[Patch], padding: int, draws: Draws) -> torch.Tensor:
        side = canvas_px(self.size_px, float(draws.max_angle[0]))
        canvas = torch.zeros(self.batch_size, 3, side, side, dtype=torch.uint8)
        padded = [*patches, *[patches[-1]] * padding]
        for number, patch in enumerate(padded):
            height, width, _ = patch.pixels.shape
            canvas[number, :, :height, :width] = patch.pixels.permute(2, 0, 1)
        theta = torch.from_numpy(np.stack([patch.theta(self.size_px, side) for patch in padded]))
        images = sample(self.compute.to_device_async(canvas).float(), self.compute.to_device_async(theta), self.size_px)
        return light(images.div_(255), draws)

    def _batch(self, rows: Order, cut: list[Any], draws: Draws | None) -> Batch:
        padding = self.batch_size - len(rows)
        padded = np.concatenate([rows, np.repeat(rows[-1:], padding)])
        images = self._plain(cut, padding) if draws is None else self._drawn(cut, padding, draws.take(padded))
        # A row of pixels is one vector: five times as fast as to broadcast over three channels that lie side by side.
        mean, std = (
            torch.tensor(v * self.size_px, device=self.compute.device) for v in (self.about.mean, self.about.std)
        )
        lines = images.permute(0, 2, 3, 1).flatten(2).sub_(mean).div_(std)
        return Batch(lines.view(-1, self.size_px, self.size_px, 3).permute(0, 3, 1, 2), padded, padding)
