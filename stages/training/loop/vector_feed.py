"""Stored activations as a feed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from stages.store.shards import Shards
from stages.training.compute.batches import Batch, Order, shuffled_order


@dataclass(frozen=True)
class VectorFeed:
    """Batches of stored activations, float32 (batch_size, d). `targets` (n, ...) are the targets of all items, on the
    CPU."""

    shards: Shards
    sha256s: list[str]
    targets: torch.Tensor
    batch_size: int
    device: torch.device
    seed: list[int]

    def __post_init__(self) -> None:
        locations = [self.shards.locate(sha) for sha in self.sha256s]
        object.__setattr__(self, "_locations", np.array(locations, dtype=np.int64).reshape(-1, 2))

    def n_batches(self) -> int:
        return -(-len(self.sha256s) // self.batch_size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        order = shuffled_order(len(self.sha256s), self.batch_size, [*self.seed, epoch])
        return self._batches(order[done * self.batch_size :])

    def plain(self) -> Iterator[Batch]:
        return self._batches(np.arange(len(self.sha256s)))

    def _batches(self, order: Order) -> Iterator[Batch]:
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            x, y = torch.from_numpy(self._take(rows)), self.targets[rows]
            yield Batch(x.to(self.device), rows, 0, y.to(self.device))

    def _take(self, rows: Order) -> npt.NDArray[np.float32]:
        locations: Order = self._locations[rows]  # type: ignore[attr-defined]
        vectors = np.empty((len(rows), self.shards.width), np.float32)
        for shard in np.unique(locations[:, 0]):
            in_shard = locations[:, 0] == shard
            vectors[in_shard] = self.shards.vectors(int(shard), locations[in_shard, 1])
        return vectors
