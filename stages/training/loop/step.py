"""One iteration of a training, or of a range test."""

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
) -> float:
    """One iteration; returns the loss before it. Gradients are not clipped (the recipe does not)."""
    optimizer.zero_grad(set_to_none=True)
    with compute.autocast():
        outputs = model(batch.x)
    loss = task.loss(outputs, batch.targets(), label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())
