"""Batches and where they come from: the interface that lets one training loop eat activations and pictures alike."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

Order = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """What a feed yields.

    `x` (n, ...): the network's inputs, on the device. `rows` (n,): the places of the items in the feed's list; the last
    `padding` of them are repeats. `y` (n, ...): the targets, on the device; None where only predictions are wanted.
    """

    x: torch.Tensor
    rows: Order
    padding: int
    y: torch.Tensor | None = None

    def targets(self) -> torch.Tensor:
        """`y`. Raises TypeError: there are none."""
        if self.y is None:
            raise TypeError("this feed has no targets: it can be predicted, but neither trained nor measured on")
        return self.y


class TrainFeed(Protocol):
    """Shuffled, and augmented if there is augmentation: each epoch anew. Batches have targets."""

    def n_batches(self) -> int: ...
    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        """`done`: so many batches of it are left out."""


class ValidFeed(Protocol):
    """In order, without augmentation. Batches have targets."""

    def n_batches(self) -> int: ...
    def plain(self) -> Iterator[Batch]: ...


def shuffled(n: int, batch_size: int, key: list[int]) -> Order:
    """A permutation of n, continued from its own start to a whole number of batches: all batches have one shape,
    and every item is seen in every epoch."""
    order = np.random.default_rng(key).permutation(n)
    return np.resize(order, -(-n // batch_size) * batch_size)


def stage_key(seed: int, stage: str) -> list[int]:
    """Random streams of two stages differ though they share the seed."""
    return [seed, zlib.crc32(stage.encode())]
