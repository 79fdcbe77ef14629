"""Resized pictures as a feed, augmented afresh each epoch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.common.batches import Batch, shuffled, stage_key
from stages.common.device import Compute
from stages.common.head import labels_to_indexes
from stages.common.network import Network
from stages.common.pictures import Pictures
from stages.common.rows import Rows
from stages.common.shards import Shards
from stages.common.transforms import TransformsParams, draw

RESIZED = Path("data/resize/shards")


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


def picture_feed(
    rows: Rows,
    stage: str,
    network: Network,
    batch_size: int,
    transforms: TransformsParams,
    seed: int,
    compute: Compute,
) -> PictureFeed:
    """One part of the split, from the resized pictures, as the network's weights want them."""
    pictures = Pictures(Shards(RESIZED), rows.sha256s, network.about, network.size_px, batch_size, compute)
    labels = labels_to_indexes(rows.labels, network.head.shape.classes)
    return PictureFeed(pictures, labels, transforms, stage_key(seed, stage))
