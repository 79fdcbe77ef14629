"""One iteration of a training, or of a range test."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from stages.training.compute.device import Compute


def train_step(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    optimizer: Optimizer,
    compute: Compute,
    label_smoothing: float = 0.0,
    scaler: torch.amp.GradScaler | None = None,
) -> float:
    """One iteration; returns the loss before it. Gradients are not clipped (the recipe does not).

    `scaler`: of `compute.grad_scaler()`; it leaves a step out whose gradients do not fit into float16.

    `label_smoothing`: share of the target spread over all classes (Szegedy et al. 2016, arXiv 1512.00567).
    """
    optimizer.zero_grad(set_to_none=True)
    with compute.autocast():
        logits = model(x)
    loss = F.cross_entropy(logits.float(), y, label_smoothing=label_smoothing)
    if scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    else:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    return float(loss.detach())
