"""Optimisers with one learning rate per layer group. Section `optimizer` of params.yaml."""

from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from stages.runtime.params import Fraction, Rate, Section


class OptimizerParams(Section):
    name: Literal["sgd", "adamw"]
    momentum: Fraction
    weight_decay: Rate


def make_optimizer(params: OptimizerParams, groups: list[list[nn.Parameter]], lrs: list[float]) -> Optimizer:
    """Returns SGD with momentum, as in fast.ai 0.7, or Adam with decoupled weight decay (Loshchilov & Hutter 2019), as
    in the later fast.ai course.

    `momentum` is Adam's first beta. Adam's second beta and eps are the values of fastai: with torch's eps of 1e-8,
    weights with very small gradients move as fast as all other weights, which ruins a pretrained body within an epoch
    (EfficientNet-Lite0). The optimiser does not contain groups with a learning rate of 0: freeze these groups.
    """
    trained_groups = [{"params": group, "lr": lr} for group, lr in zip(groups, lrs, strict=True) if lr > 0]
    if params.name == "sgd":
        return SGD(trained_groups, momentum=params.momentum, weight_decay=params.weight_decay)
    betas = (params.momentum, 0.99)
    return AdamW(trained_groups, betas=betas, eps=1e-5, weight_decay=params.weight_decay, fused=True)
