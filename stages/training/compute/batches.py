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
    `padding` of them are repeats. `y` (n, ...): the targets, on the device; None for prediction.
    """

    x: torch.Tensor
    rows: Order
    padding: int
    y: torch.Tensor | None = None

    def targets(self) -> torch.Tensor:
        """`y`. Raises TypeError if it is None."""
        if self.y is None:
            raise TypeError("this feed has no targets: it can be predicted, but neither trained nor measured on")
        return self.y


class TrainFeed(Protocol):
    """Yields shuffled batches, with another order and augmentation in each epoch. Batches have targets."""

    def n_batches(self) -> int: ...
    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch, except the first `done`."""


class ValidFeed(Protocol):
    """Yields batches in order, without augmentation. Batches have targets."""

    def n_batches(self) -> int: ...
    def plain(self) -> Iterator[Batch]: ...


def shuffled(n: int, batch_size: int, key: list[int]) -> Order:
    """A permutation of n, extended from its start to a whole number of batches: all batches have the same shape, and
    every item occurs in every epoch."""
    order = np.random.default_rng(key).permutation(n)
    return np.resize(order, -(-n // batch_size) * batch_size)


def stage_key(seed: int, stage: str) -> list[int]:
    """A seed per stage: the random streams of two stages differ though the stages share `seed`."""
    return [seed, zlib.crc32(stage.encode())]
