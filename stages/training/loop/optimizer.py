"""Optimisers with one rate per layer group. Section `optimizer` of params.yaml."""

from typing import Literal

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from stages.runtime.params import Fraction, Rate, Section


class OptimizerParams(Section):
    name: Literal["sgd", "adamw"]
    momentum: Fraction
    weight_decay: Rate


def make_optimizer(params: OptimizerParams, groups: list[list[nn.Parameter]], lrs: list[float]) -> Optimizer:
    """SGD with momentum (fast.ai 0.7) or Adam with decoupled weight decay (the later course; Loshchilov & Hutter 2019).

    `momentum` is Adam's first beta. Its second beta and eps are fastai's: with torch's eps of 1e-8 weights with hardly
    any gradient move as fast as the others, which breaks a pretrained body within an epoch (EfficientNet-Lite0).
    Groups with rate 0 are left out: freeze them.
    """
    trained = [{"params": group, "lr": lr} for group, lr in zip(groups, lrs, strict=True) if lr > 0]
    if params.name == "sgd":
        return SGD(trained, momentum=params.momentum, weight_decay=params.weight_decay)
    betas = (params.momentum, 0.99)
    return AdamW(trained, betas=betas, eps=1e-5, weight_decay=params.weight_decay, fused=True)
