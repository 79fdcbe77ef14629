"""Batches and feeds: the interface through which one training loop handles both activations and pictures."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

Order = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """A batch that a feed yields.

    `x` (n, ...): the network's inputs, on the device. `rows` (n,): positions of the items in the feed's list; the last
    `padding` rows repeat an item. `y` (n, ...): the targets, on the device; None for prediction.
    """

    x: torch.Tensor
    rows: Order
    padding: int
    y: torch.Tensor | None = None

    def targets(self) -> torch.Tensor:
        """Returns `y`. Raises TypeError if `y` is None."""
        if self.y is None:
            raise TypeError(
                "this feed has no targets: it can be used for prediction only, not for training or validation"
            )
        return self.y


class TrainFeed(Protocol):
    """Yields shuffled batches; order and augmentation differ between epochs. Batches have targets."""

    def n_batches(self) -> int: ...
    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, without the first `done` batches."""


class ValidFeed(Protocol):
    """Yields batches in order, without augmentation. Batches have targets."""

    def n_batches(self) -> int: ...
    def plain(self) -> Iterator[Batch]: ...


def shuffled_order(n: int, batch_size: int, seed: list[int]) -> Order:
    """Returns a permutation of range(n), followed by as many of its first items as fill the last batch.

    All batches thus have the same shape, and every item occurs in every epoch.
    """
    order = np.random.default_rng(seed).permutation(n)
    return np.resize(order, -(-n // batch_size) * batch_size)


def stage_seed(seed: int, stage: str) -> list[int]:
    """Returns a stage's own seed, so that the random numbers of two stages differ although they share `seed`."""
    return [seed, zlib.crc32(stage.encode())]
