"""Depthwise convolutions on the CPU in bfloat16, with a backward pass for which oneDNN has fast kernels.

Autograd's backward pass takes up to 260 times as long as the forward pass (24 pictures, 672 channels of 8 x 8, kernel
5 x 5, stride 2: 60 ms against 0.23 ms). Two gradients are slow, and are computed differently here:

- the gradient of the input, if the stride is not 1: it is computed in float32, which is fast;
- the gradient of weights larger than 3 x 3, which is slow in float32 too: it is computed in blocks of 3 x 3, which is
  1.2 to 4.4 times as fast as float32.
"""

import itertools
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.padding import pad_same
from torch import nn
from torch.nn import functional as F

from stages.training.compute.device import Compute

Model = TypeVar("Model", bound=nn.Module)
Ints = Sequence[int]
conv_backward = torch.ops.aten.convolution_backward
BLOCK = 3


class _Depthwise(torch.autograd.Function):
    """F.conv2d of a bfloat16 input with float32 weights; saves the unpadded input for the backward pass."""

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
    """Returns the gradient, float32, in the shape of `weight`. Each block of the kernel is computed from its own window
    of the padded input."""
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
    """Returns where the blocks that cover a kernel of `size` start: [0] for 3, [0, 2] for 5, [0, 3, 4] for 7."""
    return [*range(0, size - BLOCK, BLOCK), max(size - BLOCK, 0)]


class _FastBackward(nn.Conv2d):
    """Computes the same as the layer it replaces, but with `_Depthwise` in bfloat16 when gradients are needed."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not (torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            x, padding = self.padded(x.bfloat16())
            result: torch.Tensor = _Depthwise.apply(
                x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
            )
        return result

    def padded(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Returns the padded input, and the padding that the convolution itself still has to add."""
        return x, self.padding


class DepthwiseConv2d(_FastBackward):
    """Replaces nn.Conv2d."""


class DepthwiseConv2dSame(_FastBackward, Conv2dSame):
    """Replaces timm's Conv2dSame, which pads by the size of the input, as TensorFlow does."""

    def padded(self, x: torch.Tensor) -> tuple[torch.Tensor, Any]:
        return pad_same(x, list(self.kernel_size), list(self.stride), list(self.dilation)), (0, 0)


REPLACEMENTS: dict[type[nn.Module], type[_FastBackward]] = {nn.Conv2d: DepthwiseConv2d, Conv2dSame: DepthwiseConv2dSame}


def prepare_network(network: Model, compute: Compute) -> Model:
    """Moves the network to the device. If `device.fast_depthwise` is set, the device is the CPU and the precision is
    bfloat16, also replaces depthwise layers by faster layers."""
    network = compute.to_device(network)
    if compute.fast_depthwise and compute.device.type == "cpu" and compute.precision is torch.bfloat16:
        replace_depthwise(network)
    return network


def replace_depthwise(module: nn.Module) -> None:
    """Replaces each depthwise layer in `module` by a fast one with the same parameters and name.

    Layers of classes that are not in `REPLACEMENTS` are left as they are, because they may do more than a convolution.
    """
    for parent in list(module.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.Conv2d) and type(layer) in REPLACEMENTS and _is_depthwise(layer):
                setattr(parent, name, _replacement(layer))


def _is_depthwise(layer: nn.Conv2d) -> bool:
    has_hooks = bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
    is_plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str) and not has_hooks
    return 1 < layer.groups == layer.in_channels and is_plain


def _replacement(layer: nn.Conv2d) -> nn.Conv2d:
    new: nn.Conv2d = REPLACEMENTS[type(layer)](
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        layer.groups,
        bias=layer.bias is not None,
        device="meta",  # no memory for weights, which would be initialised from torch's global generator
    )
    new.weight, new.bias = layer.weight, layer.bias
    return new.train(layer.training)
