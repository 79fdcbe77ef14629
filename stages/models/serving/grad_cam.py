"""Grad-CAM: where in a picture the network saw the class that it says (Selvaraju et al. 2017, arXiv 1610.02391).

In closed form. Max and mean pooling both spread a feature's gradient with the same mean over all places, so a map's
weight is the gradient of the logit by its two pooled values, and that one the head's few layers give without autograd:
no backward pass, and the same graph goes into an ONNX file.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from stages.models.networks.backbone import Body, pool, side_of
from stages.models.networks.head import Head
from stages.runtime.errors import StageError


class Explained(nn.Module):
    """Normalised images (n, 3, s, s) to (predictions (n, ...), heat (n, h, w), 0 to 1).

    `labels` int64 (n,): the outputs that the heat is of; by default those that the task explains: the likeliest class.
    Raises StageError: the map of the network is no square.
    """

    def __init__(self, body: Body, head: Head) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        norm, _, first, relu, last_norm, _, last = self.head
        maps = self.body.maps(images)
        hidden = first(norm(pool(maps)))
        logits = last(last_norm(relu(hidden)))
        labels = self.head.shape.task.explained(logits) if labels is None else labels
        gradient = weight(last)[labels] * slope(last_norm) * (hidden > 0)
        weights = gradient @ weight(first) * slope(norm)
        weights = weights.unflatten(1, (2, -1)).sum(1).unsqueeze(2)  # of the largest value and of the mean
        heat = F.relu((weights * maps).sum(1))
        heat = heat / heat.amax(1, keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
        if (side := side_of(heat.shape[1])) is None:
            raise StageError(
                f"no Grad-CAM: the network's last feature map has {heat.shape[1]} places, which is no square"
            )
        return self.head.shape.task.predict(logits), heat.view(-1, side, side)


def weight(layer: nn.Module) -> torch.Tensor:
    return cast("nn.Linear", layer).weight


def slope(norm: nn.Module) -> torch.Tensor:
    """Of a BatchNorm in eval mode: its output by its input."""
    layer = cast("nn.BatchNorm1d", norm)
    variance = cast("torch.Tensor", layer.running_var)
    return layer.weight / torch.sqrt(variance + layer.eps)
