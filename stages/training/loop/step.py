"""One iteration of a training, or of a range test."""

from torch import nn
from torch.nn import functional as F
from torch.optim import Optimizer

from stages.training.compute.batches import Batch
from stages.training.compute.device import Compute


def train_step(
    model: nn.Module,
    batch: Batch,
    optimizer: Optimizer,
    compute: Compute,
    label_smoothing: float = 0.0,
) -> float:
    """One iteration; returns the loss before it. Gradients are not clipped (the recipe does not).

    `label_smoothing`: share of the target spread over all classes (Szegedy et al. 2016, arXiv 1512.00567).
    """
    optimizer.zero_grad(set_to_none=True)
    with compute.autocast():
        logits = model(batch.x)
    loss = F.cross_entropy(logits.float(), batch.targets(), label_smoothing=label_smoothing)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())
