"""One iteration of a training, or of a range test."""

import torch
from torch import nn
from torch.optim import Optimizer

from stages.training.compute.batches import Batch
from stages.training.compute.device import Compute
from stages.training.compute.task import Objective


def train_step(
    model: nn.Module,
    batch: Batch,
    task: Objective,
    optimizer: Optimizer,
    compute: Compute,
    label_smoothing: float = 0.0,
    scaler: torch.amp.GradScaler | None = None,
) -> float:
    """Updates the weights once. Returns the loss before the update.

    Gradients are not clipped, as in the fast.ai course. `scaler`: the result of `compute.grad_scaler()`; it skips the
    update if gradients overflow float16.
    """
    optimizer.zero_grad(set_to_none=True)
    with compute.autocast():
        outputs = model(batch.x)
    loss = task.loss(outputs, batch.targets(), label_smoothing=label_smoothing)
    if scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    else:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    return float(loss.detach())
