"""Resized pictures as a feed, augmented afresh each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stages.training.compute.batches import Batch, shuffled
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw


@dataclass(frozen=True)
class PictureFeed:
    """Pictures, freshly augmented each epoch: float (batch_size, 3, s, s)."""

    pictures: Pictures
    labels: torch.Tensor
    transforms: TransformsParams
    key: list[int]

    def n_batches(self) -> int:
        return self.pictures.n_batches()

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        n, key = len(self.pictures), [*self.key, epoch]
        order = shuffled(n, self.pictures.batch_size, key)
        return self.pictures.batches(order[done * self.pictures.batch_size :], draw(self.transforms, n, [*key, 1]))

    def plain(self) -> Iterator[Batch]:
        return self.pictures.batches()
