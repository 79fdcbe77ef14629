"""A feed of resized pictures with new augmentations in each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from stages.training.compute.batches import Batch, shuffled_order
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw


@dataclass(frozen=True)
class PictureFeed:
    """Pictures with new augmentations in each epoch: float (batch_size, 3, s, s). `targets` (n, ...) on the CPU."""

    pictures: Pictures
    targets: torch.Tensor
    transforms: TransformsParams
    seed: list[int]

    def n_batches(self) -> int:
        return self.pictures.n_batches()

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        n, seed = len(self.pictures), [*self.seed, epoch]
        order = shuffled_order(n, self.pictures.batch_size, seed)
        rest = order[done * self.pictures.batch_size :]
        return self._with_targets(self.pictures.batches(rest, draw(self.transforms, n, [*seed, 1])))

    def plain(self) -> Iterator[Batch]:
        return self._with_targets(self.pictures.batches())

    def _with_targets(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        return (batch._replace(y=self.targets[batch.rows].to(batch.x.device)) for batch in batches)
