"""Freezes layer groups and the running statistics of their BatchNorms."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def train_only(groups: list[list[nn.Parameter]], trained: list[bool]) -> None:
    """Freeze the layer groups for which `trained` is False, unfreeze the other groups. The early body comes first.

    This function does what `freeze_to` and `unfreeze` do in fast.ai 0.7.
    """
    for group, is_trained in zip(groups, trained, strict=True):
        for parameter in group:
            parameter.requires_grad_(is_trained)


def train_mode(network: nn.Module, bn_freeze: bool) -> None:
    """Puts the network into train mode, except for BatchNorms with frozen weights, whose running statistics must not
    change.

    With `bn_freeze` all BatchNorms of the body are in eval mode, even if their weights are trained: training with
    little data and small batches fails otherwise. The BatchNorms of a trained head are in train mode.
    """
    network.train()
    for name in ("body", "head"):  # a head that is trained on activations has neither of these parts
        part = getattr(network, name, None)
        if isinstance(part, nn.Module) and not any(parameter.requires_grad for parameter in part.parameters()):
            part.eval()  # turns off dropout and drop path, as when the activations were computed
    for name, module in network.named_modules():
        is_fixed = bn_freeze and name.startswith("body.")
        if isinstance(module, _BatchNorm) and (is_fixed or not module.weight.requires_grad):
            module.eval()
