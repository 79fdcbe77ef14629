"""Grad-CAM: which parts of a picture support the predicted class (Selvaraju et al. 2017, arXiv 1610.02391).

Grad-CAM is computed in closed form. Max and mean pooling both spread the gradient of a pooled value over the positions
with the same mean. The weight of a map is therefore the sum of the logit's gradients by the map's two pooled values.
These follow from the head's few layers without autograd: no backward pass is needed, and the same graph can be exported
to ONNX.
"""

from typing import cast

import torch
from torch import nn
from torch.nn import functional as F

from stages.models.networks.backbone import Body, pool, side_of
from stages.models.networks.head import Head
from stages.runtime.errors import StageError


class GradCam(nn.Module):
    """Computes predictions (n, ...) and heat maps (n, h, w), 0 to 1, from normalised images (n, 3, s, s).

    `labels` int64 (n,): the indices of the outputs to explain; by default the task chooses them.
    Raises StageError if the network's feature map is not square.
    """

    def __init__(self, body: Body, head: Head) -> None:
        super().__init__()
        self.body, self.head = body, head

    def forward(self, images: torch.Tensor, labels: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        norm, _, first, relu, last_norm, _, last = self.head
        maps = self.body.maps(images)
        hidden = first(norm(pool(maps)))
        logits = last(last_norm(relu(hidden)))
        labels = self.head.config.task.output_to_explain(logits) if labels is None else labels
        gradient = weight(last)[labels] * slope(last_norm) * (hidden > 0)
        weights = gradient @ weight(first) * slope(norm)
        weights = weights.unflatten(1, (2, -1)).sum(1).unsqueeze(2)  # the weights by max and by mean are summed
        heat = F.relu((weights * maps).sum(1))
        heat = heat / heat.amax(1, keepdim=True).clamp(min=torch.finfo(heat.dtype).tiny)
        if (side := side_of(heat.shape[1])) is None:
            raise StageError(
                f"no Grad-CAM: the network's last feature map has {heat.shape[1]} positions, which is no square number"
            )
        return self.head.config.task.predict(logits), heat.view(-1, side, side)


def weight(layer: nn.Module) -> torch.Tensor:
    return cast("nn.Linear", layer).weight


def slope(norm: nn.Module) -> torch.Tensor:
    """Returns the derivative of a BatchNorm's output by its input, in eval mode."""
    layer = cast("nn.BatchNorm1d", norm)
    variance = cast("torch.Tensor", layer.running_var)
    return layer.weight / torch.sqrt(variance + layer.eps)
