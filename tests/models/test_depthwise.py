"""Depthwise convolutions on the CPU: gradients as in float32, results as in bfloat16, nothing else touched."""

import copy

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from stages.models.networks.depthwise import speed_up_depthwise


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(16, 16, 3, padding=1, groups=16, bias=False),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, groups=16),
        Conv2dSame(16, 16, 3, stride=2, groups=16, bias=False),
        nn.Conv2d(16, 16, 5, padding=2, groups=16, bias=False),
        Conv2dSame(16, 16, 5, stride=2, groups=16, bias=False),
        nn.Conv2d(16, 16, (2, 7), stride=(1, 2), padding=(1, 3), dilation=(2, 1), groups=16, bias=False),
    ],
    ids=["plain", "strided with bias", "timm's same padding", "5 x 5", "5 x 5 strided", "2 x 7 dilated"],
)
def test_gradients_are_those_of_float32(layer: nn.Conv2d) -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 16, 9, 9).bfloat16()
    reference, x32, x16 = copy.deepcopy(layer), x.float().requires_grad_(), x.clone().requires_grad_()
    weight_of_result = torch.randn_like(reference(x32)).bfloat16()
    (reference(x32) * weight_of_result.float()).sum().backward()

    speed_up_depthwise(layer)
    with torch.autocast("cpu", torch.bfloat16):
        result = layer(x16)
        with torch.no_grad():
            torch.testing.assert_close(result, layer(x16), rtol=0, atol=0)  # training sees what prediction sees
    (result * weight_of_result).sum().backward()

    assert result.dtype == torch.bfloat16
    assert result.grad_fn is not None
    assert "_Depthwise" in result.grad_fn.name()  # autograd's own is as right, and slow
    _agree(x16.grad, x32.grad)
    _agree(layer.weight.grad, reference.weight.grad)
    if layer.bias is not None and reference.bias is not None:
        _agree(layer.bias.grad, reference.bias.grad)


def _agree(found: torch.Tensor | None, wanted: torch.Tensor | None) -> None:
    """Rounded once or twice to bfloat16, which keeps 8 bits."""
    assert found is not None
    assert wanted is not None
    torch.testing.assert_close(found.float(), wanted, rtol=2**-7, atol=2**-7 * wanted.abs().max().item())


def test_other_layers_are_left_alone() -> None:
    layers = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=8))
    speed_up_depthwise(layers)
    assert ["forward" in vars(layer) for layer in layers] == [False, False, True]
