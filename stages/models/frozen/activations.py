"""Activations of the frozen body, and everything that they depend on, from which the item store makes its keys."""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
import timm
import torch

from stages.models.networks import backbone
from stages.models.networks.backbone import Body
from stages.runtime.code_version import code_version
from stages.runtime.threads import until_stopped
from stages.training.compute import device
from stages.vision.batches import geometry, network_input, pictures, transforms
from stages.vision.batches.pictures import Pictures, Store
from stages.vision.batches.transforms import Draws


def activations(body: Body, feed: Pictures, draws: Draws | None = None) -> Iterator[npt.NDArray[np.float32]]:
    """Yields the activations of each picture, float32 (2C,), in the feed's order. Pictures are augmented by `draws`, or
    not augmented if this is None."""
    for batch in feed.batches(draws=draws):
        with torch.inference_mode(), feed.compute.autocast():
            pooled = body(batch.x)
        yield from pooled[: len(batch.rows) - batch.padding].float().cpu().numpy()


def activation_dependencies(feed: Pictures, weights_sha256: str) -> dict[str, Any]:
    """Returns everything that a picture's activations depend on, except the resized picture itself."""
    return {
        "size_px": feed.size_px, "batch_size": feed.batch_size,
        "preprocessing": feed.backbone.model_dump(exclude={"source"}), "compute": feed.compute.describe(),
        "weights": weights_sha256, "pillow": PIL.__version__, "timm": timm.__version__,
        "code": code_version(backbone, device, geometry, network_input, pictures, transforms, activations),
    }  # fmt: skip


def resized_sha256s(resized: Store, sha256s: list[str]) -> dict[str, str]:
    """Maps the sha256 of each picture to the sha256 of the resized picture, which is the body's input."""
    return {sha: hashlib.sha256(resized.blob(sha)).hexdigest() for sha in until_stopped(sha256s)}
