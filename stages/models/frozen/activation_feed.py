"""Activations of freshly augmented pictures as a feed."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stages.models.networks.backbone import Body
from stages.training.compute.batches import Batch, shuffled
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw


@dataclass(frozen=True)
class AugmentedActivations:
    """What the frozen body says of augmented pictures: float32 (batch_size, 2C).

    The body takes as few pictures at a time as memory wants (`pictures.batch_size`), the head gets as many as its
    BatchNorms want (`batch_size`).
    """

    body: Body
    pictures: Pictures
    targets: torch.Tensor
    transforms: TransformsParams
    batch_size: int
    key: list[int]

    def n_batches(self) -> int:
        return -(-len(self.pictures) // self.batch_size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        n, key, compute = len(self.pictures), [*self.key, epoch], self.pictures.compute
        order, at = shuffled(n, self.batch_size, key), done * self.batch_size
        # From the start of a batch of the body: on some devices a result depends on its place in the batch.
        start = at - at % self.pictures.batch_size
        waiting, seen = torch.empty(0, self.body.n_features, device=compute.device), at - start
        for batch in self.pictures.batches(order[start:], draw(self.transforms, n, [*key, 1])):
            with torch.no_grad(), compute.autocast():
                pooled = self.body(batch.x)
            waiting = torch.cat([waiting, pooled[seen : len(batch.rows) - batch.padding]])
            seen = 0
            while len(waiting) >= self.batch_size:
                rows = order[at : at + self.batch_size]
                yield Batch(waiting[: self.batch_size], rows, 0, self.targets[rows].to(compute.device))
                waiting, at = waiting[self.batch_size :], at + self.batch_size
