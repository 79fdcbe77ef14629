"""Freezing layer groups, and the running statistics of their BatchNorms."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def train_only(groups: list[list[nn.Parameter]], trained: list[bool]) -> None:
    """Freeze the layer groups that are not `trained` (early body first): 0.7's `freeze_to` and `unfreeze`."""
    for group, on in zip(groups, trained, strict=True):
        for parameter in group:
            parameter.requires_grad_(on)


def train_mode(network: nn.Module, bn_freeze: bool) -> None:
    """Train mode, except for BatchNorms with frozen weights: in eval mode their running statistics do not change.

    With `bn_freeze` all BatchNorms of the body stay in eval, also the trained ones: with small data and batches
    training fails otherwise. Those of the head stay in train mode.
    """
    network.train()
    for name in ("body", "head"):  # a head on activations has neither part: all of it is trained
        part = getattr(network, name, None)
        if isinstance(part, nn.Module) and not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()  # without dropout and drop path, as when the activations were computed
    for name, module in network.named_modules():
        is_fixed = bn_freeze and name.startswith("body.")
        if isinstance(module, _BatchNorm) and (is_fixed or not module.weight.requires_grad):
            module.eval()
