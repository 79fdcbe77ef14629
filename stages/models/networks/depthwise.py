"""Depthwise convolutions on the CPU in bfloat16, with a backward pass that oneDNN has kernels for.

Autograd's takes up to 260 times as long as the forward pass (672 channels of 8 x 8, 5 x 5, stride 2, 24 pictures: 60 ms
against 0.23): for the input where the stride is not 1 (float32 is fast there), and for weights larger than 3 x 3 (slow
in float32 too; in 3 x 3 blocks they are 1.2 to 4.4 times as fast as that).
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

Ints = Sequence[int]
conv_backward = torch.ops.aten.convolution_backward
BLOCK = 3


class _Depthwise(torch.autograd.Function):
    """F.conv2d of a bfloat16 input with float32 weights; keeps the input as it came."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: Ints,
        padding: Ints,
        dilation: Ints,
        groups: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.shape = (stride, padding, dilation, groups)
        return F.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), *ctx.shape)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), (stride, padding, dilation, groups) = ctx.saved_tensors, ctx.shape
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        grad_x = grad_weight = grad_bias = None
        if to_x:
            dtype = x.dtype if max(stride) == 1 else torch.float32
            tensors = [tensor.to(dtype) for tensor in (grad, x, weight)]
            only_x = [True, False, False]
            grad_x = conv_backward(*tensors, None, stride, padding, dilation, False, [0, 0], groups, only_x)[0].to(x)
        if to_weight:
            grad_weight = _weight_gradient(grad, x, weight, stride, padding, dilation)
        if to_bias:
            grad_bias = grad.sum((0, 2, 3), dtype=torch.float32)
        return grad_x, grad_weight, grad_bias, None, None, None, None


def _weight_gradient(
    grad: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: Ints, padding: Ints, dilation: Ints
) -> torch.Tensor:
    """float32, the shape of `weight`: each block of the kernel sees its own window of the padded input."""
    padded, out = F.pad(x, (padding[1], padding[1], padding[0], padding[0])), torch.empty_like(weight)
    only_weight = [False, True, False]
    for top, left in itertools.product(_starts(weight.shape[2]), _starts(weight.shape[3])):
        block = out[:, :, top : top + BLOCK, left : left + BLOCK]
        rows, columns = (
            slice(start * step, start * step + (size - 1) * step + (n - 1) * jump + 1)
            for start, step, size, n, jump in zip(
                (top, left), dilation, block.shape[2:], grad.shape[2:], stride, strict=True
            )
        )
        window = padded[:, :, rows, columns].contiguous(memory_format=torch.channels_last)
        given = (grad, window, block.to(x.dtype), None, stride, [0, 0], dilation, False, [0, 0], x.shape[1])
        block.copy_(conv_backward(*given, only_weight)[1])
    return out


def _starts(size: int) -> list[int]:
    """Where the blocks begin that cover a kernel of `size`: 3: 0; 5: 0, 2; 7: 0, 3, 4."""
    return [*range(0, size - BLOCK, BLOCK), max(size - BLOCK, 0)]


class _Swap(TorchFunctionMode):
    """In a layer's own forward (timm's pads first) its convolution, and nothing else, becomes `_Depthwise`."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        _: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        return _Depthwise.apply(*args) if func is F.conv2d else func(*args, **(kwargs or {}))


def _forward(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    if not (torch.is_grad_enabled() and (x.requires_grad or layer.weight.requires_grad)):
        return type(layer).forward(layer, x)
    with torch.autocast("cpu", enabled=False), _Swap():
        return type(layer).forward(layer, x.bfloat16())


def speed_up_depthwise(module: nn.Module) -> None:
    """Give every depthwise layer of `module` the faster backward pass; without gradients nothing changes."""
    for layer in module.modules():
        if (
            isinstance(layer, nn.Conv2d)
            and 1 < layer.groups == layer.in_channels
            and not isinstance(layer.padding, str)
        ):
            layer.forward = partial(_forward, layer)  # type: ignore[method-assign]
