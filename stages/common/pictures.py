"""Batches of resized pictures on the device, cut to squares by threads, on a GPU ahead of the network."""

import io
import math
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from stages.common.batches import Batch
from stages.common.device import Compute
from stages.common.preprocessing import Backbone
from stages.common.shards import Shards
from stages.common.transforms import Draws, augment_batch, centre, square

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pictures:
    """The listed pictures of a shard store at one size. Every batch has the same shape: the last one is padded, so
    that a picture's result does not depend on how many there are."""

    shards: Shards
    sha256s: list[str]
    about: Backbone
    size_px: int
    batch_size: int
    compute: Compute

    def __len__(self) -> int:
        return len(self.sha256s)

    def n_batches(self) -> int:
        return -(-len(self) // self.batch_size)

    def batches(self, order: npt.NDArray[np.int64] | None = None, draws: Draws | None = None) -> Iterator[Batch]:
        """All pictures in `order` (default: as listed), augmented by `draws` (row i belongs to picture i) or plain."""
        rows = np.arange(len(self)) if order is None else order
        draws = centre(len(self)) if draws is None else draws
        chunks = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        ahead: deque[tuple[npt.NDArray[np.int64], list[Future[Bytes]]]] = deque()
        # On the CPU the network wants the same cores: threads beside it cost a sixth of its speed, and win nothing.
        n_ahead = 0 if self.compute.device.type == "cpu" else 2
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for chunk in [*chunks, *[None] * n_ahead]:
                if chunk is not None:
                    ahead.append((chunk, [pool.submit(self._cut, int(row), draws) for row in chunk]))
                if len(ahead) > n_ahead or (chunk is None and ahead):
                    ready, cut = ahead.popleft()
                    yield self._batch(ready, [future.result() for future in cut], draws)

    def _cut(self, row: int, draws: Draws) -> Bytes:
        """uint8 (s, s, 3): the drawn square of one picture, with the weights' own interpolation."""
        zoom, x, y = (float(column[row]) for column in (draws.zoom, draws.place_x, draws.place_y))
        with Image.open(io.BytesIO(self.shards.blob(self.sha256s[row]))) as image:
            width, height = image.size
            left, top, right, bottom = square(width, height, zoom / self.about.crop_pct, x, y)
            enough = self.size_px / (right - left)
            image.draft(None, (math.ceil(width * enough), math.ceil(height * enough)))  # JPEG decodes halves for less
            image.load()
            x_scale, y_scale = image.width / width, image.height / height
            box = (left * x_scale, top * y_scale, right * x_scale, bottom * y_scale)
            resample = Image.Resampling[self.about.interpolation.upper()]
            return np.asarray(image.resize((self.size_px, self.size_px), resample, box=box, reducing_gap=3.0))

    def _batch(self, rows: npt.NDArray[np.int64], cut: list[Bytes], draws: Draws) -> Batch:
        padding = self.batch_size - len(rows)
        padded = np.concatenate([rows, np.repeat(rows[-1:], padding)])
        stacked = torch.from_numpy(np.stack([*cut, *[cut[-1]] * padding])).to(self.compute.device)
        images = self.compute.place(stacked.permute(0, 3, 1, 2).float().div_(255))
        images = augment_batch(images, draws.take(padded))
        mean, std = (
            torch.tensor(v, device=self.compute.device).view(3, 1, 1) for v in (self.about.mean, self.about.std)
        )
        return Batch(self.compute.place((images - mean) / std), padded, padding)
