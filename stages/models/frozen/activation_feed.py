"""A feed of activations whose pictures are augmented anew in each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stages.models.networks.backbone import Body
from stages.training.compute.batches import Batch, shuffled_order
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw


@dataclass(frozen=True)
class AugmentedActivations:
    """Batches of the frozen body's activations of augmented pictures: float32 (batch_size, 2C).

    The body's batches (`pictures.batch_size`) are as small as memory requires. The head's batches (`batch_size`) are as
    large as the head's BatchNorms need.
    """

    body: Body
    pictures: Pictures
    targets: torch.Tensor
    transforms: TransformsParams
    batch_size: int
    seed: list[int]

    def n_batches(self) -> int:
        return -(-len(self.pictures) // self.batch_size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        n, seed, compute = len(self.pictures), [*self.seed, epoch], self.pictures.compute
        order, position = shuffled_order(n, self.batch_size, seed), done * self.batch_size
        # Start at the beginning of a batch of the body: on some devices a picture's result depends on its position in
        # the batch.
        start = position - position % self.pictures.batch_size
        buffered, skip = torch.empty(0, self.body.n_features, device=compute.device), position - start
        for batch in self.pictures.batches(order[start:], draw(self.transforms, n, [*seed, 1])):
            with torch.no_grad(), compute.autocast():
                pooled = self.body(batch.x)
            buffered = torch.cat([buffered, pooled[skip : len(batch.rows) - batch.padding]])
            skip = 0
            while len(buffered) >= self.batch_size:
                rows = order[position : position + self.batch_size]
                yield Batch(buffered[: self.batch_size], rows, 0, self.targets[rows].to(compute.device))
                buffered, position = buffered[self.batch_size :], position + self.batch_size
