"""Predicts batches, and averages the predictions of augmented views (TTA)."""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stages.runtime.stage import track
from stages.training.compute.batches import Batch
from stages.training.compute.device import Compute
from stages.training.compute.task import Objective

Floats = npt.NDArray[np.float32]


def predict(
    model: nn.Module, batches: Iterator[Batch], n: int, n_batches: int, task: Objective, compute: Compute
) -> Floats:
    """Returns the task's predictions, float32 (n, ...), in the order of the batches, without padding. Leaves the model
    in eval mode."""
    parts = [predicted for predicted, _ in predict_batches(model, batches, n_batches, task, compute)]
    result: Floats = np.concatenate(parts)
    if len(result) != n:
        raise RuntimeError(f"{len(result)} predictions for {n} pictures")
    return result


def predict_batches(
    model: nn.Module, batches: Iterator[Batch], n_batches: int, task: Objective, compute: Compute
) -> Iterator[tuple[Floats, Batch]]:
    """Yield (predictions without padding, batch). Leaves the model in eval mode."""
    model.eval()
    for batch in track(batches, n_batches, "batches"):
        with torch.inference_mode():  # not around the yield, where the caller's code would run in inference mode too
            with compute.autocast():
                outputs = model(batch.x)
            predicted = task.predict(outputs).cpu().numpy()
        yield predicted[: len(predicted) - batch.padding], batch


def average(plain: Floats, augmented: Sequence[Floats]) -> Floats:
    """Returns the mean for test-time augmentation, of predictions (probabilities, not their logarithms).

    As in fast.ai 0.7, it is the mean of the augmented predictions and ceil(n_aug / 4) copies of the plain prediction.
    """
    if not augmented:
        return plain
    views = [plain] * math.ceil(len(augmented) / 4) + [*augmented]
    return np.asarray(np.mean(views, axis=0, dtype=np.float64), np.float32)
