"""Batches and where they come from: the interface that lets one training loop eat activations and pictures alike."""

import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

Order = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """`x` on the device; `rows` (n,) the places of its items in the feed's list; the last `padding` are repeats."""

    x: torch.Tensor
    rows: Order
    padding: int


class Labelled(Protocol):
    """Items with their labels, int64 (n,)."""

    @property
    def labels(self) -> torch.Tensor: ...
    def n_batches(self) -> int: ...


class TrainFeed(Labelled, Protocol):
    """Shuffled, and augmented if there is augmentation: each epoch anew. `done`: so many batches of it are left out."""

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]: ...


class ValidFeed(Labelled, Protocol):
    """In order, without augmentation."""

    def plain(self) -> Iterator[Batch]: ...


def shuffled(n: int, batch_size: int, key: list[int]) -> Order:
    """A permutation of n, continued from its own start to a whole number of batches: all batches have one shape,
    and every item is seen in every epoch."""
    order = np.random.default_rng(key).permutation(n)
    return np.resize(order, -(-n // batch_size) * batch_size)


def stage_key(seed: int, stage: str) -> list[int]:
    """Random streams of two stages differ though they share the seed."""
    return [seed, zlib.crc32(stage.encode())]
