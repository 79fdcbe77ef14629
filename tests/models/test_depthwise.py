"""Depthwise convolutions on the CPU: gradients as in float32, results as in bfloat16, nothing else touched."""

import copy

import pytest
import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import nn

from stages.models.networks.depthwise import DepthwiseConv2d, DepthwiseConv2dSame, prepare_network, replace_depthwise
from stages.training.compute.device import Compute
from tests.conftest import BODY


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

    replaced = nn.Sequential(layer)
    replace_depthwise(replaced)
    assert type(replaced[0]) in (DepthwiseConv2d, DepthwiseConv2dSame)
    assert replaced[0].weight is layer.weight
    assert replaced[0].bias is layer.bias
    with torch.autocast("cpu", torch.bfloat16):
        result = replaced(x16)
        with torch.no_grad():
            torch.testing.assert_close(result, replaced(x16), rtol=0, atol=0)
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
    """And those that do more than to convolve: of another class, with other padding, with hooks."""
    hooked = nn.Conv2d(8, 8, 3, groups=8)
    hooked.register_forward_hook(lambda *_: None)
    others = [
        nn.Conv2d(8, 8, 3),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 3, groups=8, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 8, 3, groups=8, padding="same"),
        hooked,
        nn.Conv1d(8, 8, 3, groups=8),
    ]
    layers = nn.Sequential(*others, nn.Conv2d(8, 8, 3, groups=8))
    replace_depthwise(layers)
    assert list(layers[:-1]) == others
    assert type(layers[-1]) is DepthwiseConv2d


def test_a_network_keeps_its_names_its_order_and_torchs_random_numbers() -> None:
    net = timm.create_model(BODY)
    keys, parameters, modes = list(net.state_dict()), list(net.parameters()), [m.training for m in net.modules()]
    before = torch.get_rng_state()
    replace_depthwise(net)
    assert sum(isinstance(m, DepthwiseConv2d | DepthwiseConv2dSame) for m in net.modules()) > 0
    assert list(net.state_dict()) == keys
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("compute", "replaced"),
    [
        (Compute(torch.device("cpu"), torch.bfloat16, fast_depthwise=True), True),
        (Compute(torch.device("cpu"), torch.bfloat16, fast_depthwise=False), False),
        (Compute(torch.device("cpu"), torch.float32, fast_depthwise=True), False),
    ],
)
def test_only_where_it_is_asked_for_and_helps(compute: Compute, replaced: bool) -> None:
    net = prepare_network(nn.Sequential(nn.Conv2d(8, 8, 3, groups=8)), compute)
    assert (type(net[0]) is DepthwiseConv2d) == replaced


def test_a_step_of_a_network_is_near_float32s() -> None:
    """Output and gradients in bfloat16, near those of F.conv2d and autograd in float32."""
    net, x = small_network()
    with torch.autocast("cpu", torch.bfloat16):
        result = net(x)
    result.float().square().sum().backward()
    reference, _ = small_network(replaced=False)
    expected = reference(x)
    expected.square().sum().backward()
    torch.testing.assert_close(result.float(), expected, rtol=0.05, atol=0.05 * expected.abs().max().item())
    for found, wanted in zip(net.parameters(), reference.parameters(), strict=True):
        assert found.grad is not None
        assert wanted.grad is not None
        assert torch.nn.functional.cosine_similarity(found.grad.flatten(), wanted.grad.flatten(), dim=0) > 0.99


def small_network(replaced: bool = True) -> tuple[nn.Sequential, torch.Tensor]:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 16, 1),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.ReLU(),
            Conv2dSame(16, 16, 5, stride=2, groups=16, bias=False),
        )
        x = torch.randn(4, 3, 17, 17)
    if replaced:
        replace_depthwise(net)
    return net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
