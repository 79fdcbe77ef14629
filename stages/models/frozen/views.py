"""Precomputed activations of K augmented views of each picture.

fast.ai 0.7 draws new augmentations in each epoch, so each epoch of the head runs the whole body. Here a picture has K
views, drawn from the seed, the view's number and the picture's content, and the item store keeps their activations. An
epoch of the head then needs no forward pass of the body, nor does TTA, and a new picture needs only its own K views.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
import torch

from stages.models.frozen.activations import activations, contents, depends_on
from stages.models.networks.backbone import Body
from stages.store.items import Items, ItemsParams, load_or_make, make_missing
from stages.training.compute.batches import Batch, Order, shuffled
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
        key: list[int],
        items: ItemsParams,
        weights_sha256: str,
    ) -> None:
        self.body, self.pictures, self.transforms, self.key = body, pictures, transforms, key
        about = depends_on(pictures, weights_sha256) | {"transforms": transforms.model_dump(), "key": key}
        self.collections = [Items("views", about | {"view": view}, items) for view in range(n_views)]

    def __len__(self) -> int:
        return len(self.collections)

    @cached_property
    def content(self) -> dict[str, str]:
        return contents(self.pictures.store, self.pictures.sha256s)

    @cached_property
    def picture(self) -> dict[str, str]:
        return {content: sha for sha, content in self.content.items()}

    def make(self, view: int, resized_shas: Sequence[str]) -> Iterator[bytes]:
        feed = replace(self.pictures, sha256s=[self.picture[content] for content in resized_shas])
        draws = draw_each(self.transforms, resized_shas, [*self.key, view])
        return (vector.tobytes() for vector in activations(self.body, feed, draws))

    def compute_missing(self) -> None:
        """Compute the activations that the item store lacks."""
        for view, items in enumerate(self.collections):
            make_missing(items, self.picture, partial(self.make, view))

    def n_computed(self) -> int:
        """How many activations were computed so far."""
        return sum(items.n_computed for items in self.collections)

    def take(self, view: int, sha256s: Sequence[str]) -> npt.NDArray[np.float32]:
        """float32 (n, 2C)."""
        vectors = load_or_make(self.collections[view], [self.content[sha] for sha in sha256s], partial(self.make, view))
        return np.stack([np.frombuffer(vector, np.float32) for vector in vectors])

    def close(self) -> None:
        for items in self.collections:
            items.mark_used()  # in all collections, before closing the first one trims the store
        for items in self.collections:
            items.close()


class ViewsFeed:
    """Batches of precomputed views, float32 (batch_size, 2C): epoch e uses view e mod K of every picture."""

    def __init__(
        self, views: Views, sha256s: list[str], targets: torch.Tensor, batch_size: int, key: list[int]
    ) -> None:
        self.views, self.sha256s, self.targets, self.batch_size, self.key = views, sha256s, targets, batch_size, key

    def n_batches(self) -> int:
        return -(-len(self.sha256s) // self.batch_size)

    def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
        order = shuffled(len(self.sha256s), self.batch_size, [*self.key, epoch])
        return self.view(epoch % len(self.views), order[done * self.batch_size :])

    def view(self, view: int, order: Order) -> Iterator[Batch]:
        for start in range(0, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            vectors = self.views.take(view, [self.sha256s[row] for row in rows])
            device = self.views.pictures.compute.device
            yield Batch(torch.from_numpy(vectors).to(device), rows, 0, self.targets[rows].to(device))
