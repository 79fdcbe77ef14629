"""Probabilities from batches."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from stages.runtime.stage import track
from stages.training.compute.batches import Batch
from stages.training.compute.device import Compute

Floats = npt.NDArray[np.float32]


def predict(model: nn.Module, batches: Iterator[Batch], n: int, n_batches: int, compute: Compute) -> Floats:
    """Probabilities, float32 (n, classes), in the order of the list; padding is dropped. Leaves the model in eval."""
    parts = [predicted for predicted, _ in predict_batches(model, batches, n_batches, compute)]
    result: Floats = np.concatenate(parts)
    if len(result) != n:
        raise RuntimeError(f"{len(result)} predictions for {n} pictures")
    return result


def predict_batches(
    model: nn.Module, batches: Iterator[Batch], n_batches: int, compute: Compute
) -> Iterator[tuple[Floats, Batch]]:
    """(probabilities of a batch without its padding, the batch). Leaves the model in eval."""
    model.eval()
    for batch in track(batches, n_batches, "batches"):
        with torch.inference_mode():  # not around the yield: what takes the batches would be in it too
            with compute.autocast():
                logits = model(batch.x)
            probabilities = F.softmax(logits.float(), dim=1).cpu().numpy()
        yield probabilities[: len(probabilities) - batch.padding], batch


def average(plain: Floats, augmented: Sequence[Floats]) -> Floats:
    """TTA: probabilities averaged, not their logarithms; as 0.7, ceil(n_aug / 4) copies of the plain prediction with
    the augmented ones."""
    if not augmented:
        return plain
    views = [plain] * math.ceil(len(augmented) / 4) + [*augmented]
    return np.asarray(np.mean(views, axis=0, dtype=np.float64), np.float32)
