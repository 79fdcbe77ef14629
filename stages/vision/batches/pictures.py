"""Batches of resized pictures on the device, cut to squares by threads, on a GPU ahead of the network."""

import io
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from stages.runtime.threads import map_lots, threads
from stages.training.compute.batches import Batch, Order
from stages.training.compute.device import Compute
from stages.vision.batches.preprocessing import Backbone
from stages.vision.batches.transforms import Draws, augment_batch, square

AT_ONCE = 64  # pictures cut before the network goes on: at the end of them cores wait for the last one
A_LOT = 4  # of them go to a thread together


class Store(Protocol):
    """Where the bytes of a resized picture lie: shards, or memory."""

    def blob(self, sha256: str) -> bytes: ...


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
        many = max(1, AT_ONCE // self.batch_size) * self.batch_size
        ahead: deque[tuple[Order, Iterator[torch.Tensor]]] = deque()
        # On the CPU the network wants the same cores: threads beside it cost a sixth of its speed, and win nothing.
        n_ahead = 0 if self.compute.device.type == "cpu" else 1
        with threads() as pool:
            for some in [*(rows[start : start + many] for start in range(0, len(rows), many)), *[None] * n_ahead]:
                if some is not None:
                    ahead.append((some, map_lots(pool, partial(self.cut, draws=draws), some.tolist(), A_LOT)))
                if len(ahead) > n_ahead or (some is None and ahead):
                    ready, results = ahead.popleft()
                    cut = list(results)
                    for start in range(0, len(ready), self.batch_size):
                        part = slice(start, start + self.batch_size)
                        yield self._batch(ready[part], cut[part], draws)

    def cut(self, row: int, draws: Draws | None = None) -> torch.Tensor:
        """uint8 (s, s, 3): the drawn square of one picture, in whole pixels, with the weights' own interpolation.

        torch resizes bytes with AVX2, three times as fast as Pillow and equal to it but for single values.
        """
        zoom, x, y = 1.0, 0.5, 0.5
        if draws is not None:
            zoom, x, y = (float(column[row]) for column in (draws.zoom, draws.place_x, draws.place_y))
        with Image.open(io.BytesIO(self.store.blob(self.sha256s[row]))) as image:
            width, height = image.size
            box = square(width, height, zoom / self.about.crop_pct, x, y)
            enough = self.size_px / (box[2] - box[0])
            image.draft(None, (math.ceil(width * enough), math.ceil(height * enough)))  # JPEG decodes halves for less
            image.load()
            scales = (image.width / width, image.height / height) * 2
            left, top, right, bottom = (round(edge * scale) for edge, scale in zip(box, scales, strict=True))
            pixels = np.array(image.crop((left, top, max(right, left + 1), max(bottom, top + 1))))
        planes = torch.from_numpy(np.atleast_3d(pixels))[None].permute(0, 3, 1, 2)  # one of a grey picture
        size = (self.size_px, self.size_px)
        cut = F.interpolate(planes, size, mode=self.about.interpolation, antialias=True)[0]
        return cut.permute(1, 2, 0).expand(-1, -1, 3)

    def _batch(self, rows: Order, cut: list[torch.Tensor], draws: Draws | None) -> Batch:
        padding = self.batch_size - len(rows)
        padded = np.concatenate([rows, np.repeat(rows[-1:], padding)])
        stacked = self.compute.send(torch.stack([*cut, *[cut[-1]] * padding]))
        images = stacked.permute(0, 3, 1, 2).float().div_(255)
        if draws is not None:
            images = augment_batch(images, draws.take(padded))
        # A row of pixels is one vector: five times as fast as to broadcast over three channels that lie side by side.
        mean, std = (
            torch.tensor(v * self.size_px, device=self.compute.device) for v in (self.about.mean, self.about.std)
        )
        lines = images.permute(0, 2, 3, 1).flatten(2).sub_(mean).div_(std)
        return Batch(lines.view(-1, self.size_px, self.size_px, 3).permute(0, 3, 1, 2), padded, padding)
