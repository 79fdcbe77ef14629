"""Precomputed activations of K augmented views of each picture.

fast.ai 0.7 draws new augmentations in each epoch, so each epoch of the head runs the whole body. In this module a
picture has K views, which are drawn from the seed, the view's number and the picture's content, and the item store
keeps their activations. Neither an epoch of the head nor TTA then needs a forward pass of the body, and for a new
picture only its own K views are computed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch

from stages.models.frozen.activations import activation_dependencies, activations, resized_sha256s
from stages.models.networks.backbone import Body
from stages.store.items import Items, ItemsParams, load_or_make, make_missing
from stages.training.compute.batches import Batch, Order, shuffled_order
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw_each


class Views:
    """Activations of `n_views` augmented views of each of the pictures: float32 (2C,)."""

    def __init__(
        self,
        body: Body,
        pictures: Pictures,
        transforms: TransformsParams,
        n_views: int,
        seed: list[int],
        items: ItemsParams,
        weights_sha256: str,
    ) -> None:
        self.body, self.pictures, self.transforms, self.seed = body, pictures, transforms, seed
        dependencies = activation_dependencies(pictures, weights_sha256)
        dependencies |= {"transforms": transforms.model_dump(), "seed": seed}
        self.collections = [Items("views", dependencies | {"view": view}, items) for view in range(n_views)]

    def __len__(self) -> int:
        return len(self.collections)

    @cached_property
    def resized_by_picture(self) -> dict[str, str]:
        """Maps the sha256 of each picture to the sha256 of the resized picture."""
        return resized_sha256s(self.pictures.store, self.pictures.sha256s)

    @cached_property
    def picture_by_resized(self) -> dict[str, str]:
        return {resized: picture for picture, resized in self.resized_by_picture.items()}

    def make(self, view: int, resized_shas: Sequence[str]) -> Iterator[bytes]:
        feed = replace(self.pictures, sha256s=[self.picture_by_resized[sha] for sha in resized_shas])
        draws = draw_each(self.transforms, resized_shas, [*self.seed, view])
        return (vector.tobytes() for vector in activations(self.body, feed, draws))

    def compute_missing(self) -> None:
        """Compute the activations that the item store lacks."""
        for view, items in enumerate(self.collections):
            make_missing(items, self.picture_by_resized, partial(self.make, view))

    def n_computed(self) -> int:
        """How many activations were computed so far."""
        return sum(items.n_computed for items in self.collections)

    def take(self, view: int, sha256s: Sequence[str]) -> npt.NDArray[np.float32]:
        """Returns the activations of one view of each of these pictures, float32 (n, 2C)."""
        resized_shas = [self.resized_by_picture[sha] for sha in sha256s]
        vectors = load_or_make(self.collections[view], resized_shas, partial(self.make, view))
        return np.stack([np.frombuffer(vector, np.float32) for vector in vectors])

    def close(self) -> None:
        for items in self.collections:
            items.mark_used()  # for all collections, because closing the first collection already trims the store
        for items in self.collections:
            items.close()


class ViewsFeed:
    """Batches of precomputed views, float32 (batch_size, 2C). Epoch e uses view e mod K of every picture."""

    def __init__(
        self, views: Views, sha256s: list[str], targets: torch.Tensor, batch_size: int, seed: list[int]
    ) -> None:
        self.views, self.sha256s, self.targets, self.batch_size, self.seed = views, sha256s, targets, batch_size, seed

    def n_batches(self) -> int:
        return -(-len(self.sha256s) // self.batch_size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        order = shuffled_order(len(self.sha256s), self.batch_size, [*self.seed, epoch])
        return self.view(epoch % len(self.views), order[done * self.batch_size :])

    def view(self, view: int, order: Order) -> Iterator[Batch]:
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            vectors = self.views.take(view, [self.sha256s[row] for row in rows])
            device = self.views.pictures.compute.device
            yield Batch(torch.from_numpy(vectors).to(device), rows, 0, self.targets[rows].to(device))
