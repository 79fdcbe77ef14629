"""Activations of freshly augmented pictures as a feed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stages.common.backbone import Body
from stages.common.batches import Batch, shuffled
from stages.common.pictures import Pictures
from stages.common.transforms import TransformsParams, draw


@dataclass(frozen=True)
class AugmentedActivations:
    """What the frozen body says of augmented pictures: float32 (batch_size, 2C).

    The body takes as few pictures at a time as memory wants (`pictures.batch_size`), the head gets as many as its
    BatchNorms want (`batch_size`).
    """

    body: Body
    pictures: Pictures
    labels: torch.Tensor
    transforms: TransformsParams
    batch_size: int
    key: list[int]

    def n_batches(self) -> int:
        return -(-len(self.pictures) // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        n, key, compute = len(self.pictures), [*self.key, epoch], self.pictures.compute
        order, done = shuffled(n, self.batch_size, key), 0
        waiting = torch.empty(0, self.body.n_features, device=compute.device)
        for images, rows, padding in self.pictures.batches(order, draw(self.transforms, n, [*key, 1])):
            with torch.no_grad(), compute.autocast():
                pooled = self.body(images)
            waiting = torch.cat([waiting, pooled[: len(rows) - padding]])
            while len(waiting) >= self.batch_size:
                yield Batch(waiting[: self.batch_size], order[done : done + self.batch_size], 0)
                waiting, done = waiting[self.batch_size :], done + self.batch_size
