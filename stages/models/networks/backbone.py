"""The body: a timm network up to its last feature map, then concatenated max and average pooling.

The weights determine how pictures are preprocessed. The stage `backbone` writes this to `backbone.json`, which later
stages read.
"""

import hashlib
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import group_parameters
from torch import nn

from stages.runtime.errors import StageError
from stages.vision.batches.preprocessing import Backbone


def pool(maps: torch.Tensor) -> torch.Tensor:
    """Pools (n, C, positions) to (n, 2C): the maximum over positions, then the mean."""
    return torch.cat([maps.amax(2), maps.mean(2)], dim=1)


def n_prefix_tokens(net: Any, n_tokens: int) -> int:
    """Returns the number of class and register tokens, which precede the tokens of the positions.

    Some networks of timm, such as VOLO, do not have the attribute `num_prefix_tokens`. For these the number is 1 if
    this leaves a square number of positions, else 0.
    """
    declared: int | None = getattr(net, "num_prefix_tokens", None)
    if declared is not None:
        return declared
    return int(side_of(n_tokens) is None and side_of(n_tokens - 1) is not None)


def side_of(n_positions: int) -> int | None:
    """Returns the side of a square map with `n_positions` positions, None if that number is not a square."""
    side = math.isqrt(n_positions)
    return side if side * side == n_positions else None


class Body(nn.Module):
    """Computes features (n, 2C) from images (n, 3, s, s), where C is the number of channels of the last feature map.

    The features are the concatenated results of adaptive max and average pooling, as in fast.ai 0.7.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        # Other names, such as `hf-hub:...` or `local-dir:...`, would let a model file choose the code that is run.
        if not timm.is_model(name):
            raise StageError(f"{name} is not a model of timm {timm.__version__}: `timm.list_models()` lists them")
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        self.name, self.net = name, net
        self.n_features: int = 2 * net.num_features
        self.native_size_px: int = net.pretrained_cfg["input_size"][-1]

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the last feature map, float32 (n, C, positions), with the positions row by row."""
        features = self.net.forward_features(images)
        if features.ndim == 3:  # transformers return (n, tokens, C); class and register tokens have no position
            features = features[:, n_prefix_tokens(self.net, features.shape[1]) :].transpose(1, 2)
        elif getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            features = features.flatten(1, 2).transpose(1, 2)
        else:
            features = features.flatten(2)
        maps: torch.Tensor = features.float()
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return pool(self.maps(images))

    def size_problem(self, size_px: int) -> str | None:
        """Processes one picture of that size. Returns why the network cannot process it; None if it can."""
        try:
            device = next(self.parameters()).device
            with temporary_eval_mode(self), torch.no_grad():
                shape = tuple(self(torch.zeros(1, 3, size_px, size_px, device=device)).shape)
        except Exception as error:  # the type of the exception depends on the network
            if "can't allocate memory" in str(error):  # the size may still be right for the network
                return None
            return " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return None if shape == (1, self.n_features) else f"its features are {shape}"

    def check_size(self, size_px: int, param: str) -> None:
        """Raises StageError if the network cannot process pictures of `size_px`, the value of the param `param`."""
        if (problem := self.size_problem(size_px)) is not None:
            raise StageError(
                f"{param} is {size_px}, but {self.name} does not accept pictures of that size ({problem}): it was made "
                f"for {self.native_size_px}"
            )

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Returns the parameters of the early body and of the late body, divided after three fifths of timm's stages.

        For ResNets the division is after `layer2`, where fast.ai 0.7 divides resnet34 (child 6 of 8).
        """
        stages = group_parameters(self.net, self.net.group_matcher(coarse=True))
        by_stage = [stages[key] for key in sorted(stages)]
        n_early = round(0.6 * len(by_stage))
        parameters = dict(self.net.named_parameters())
        early = {name for names in by_stage[:n_early] for name in names}
        return (
            [p for name, p in parameters.items() if name in early],
            [p for name, p in parameters.items() if name not in early],
        )


@contextmanager
def temporary_eval_mode(module: nn.Module) -> Iterator[None]:
    """Puts a network into eval mode for a `with` block, then gives each of its modules its previous mode back.

    The previous mode is set by calling the module's `train`, because the `train` of timm's LeViT also clears a cache.
    """
    previous_modes = [(submodule, submodule.training) for submodule in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for submodule, was_training in previous_modes:
            submodule.train(was_training)


def load_backbone(folder: Path) -> tuple[Backbone, Body]:
    """Returns the backbone's description and the frozen body in eval mode, from the folder of the stage backbone."""
    backbone = Backbone.model_validate(json.loads((folder / "backbone.json").read_text(encoding="utf-8")))
    body = Body(backbone.name)
    body.net.load_state_dict(load_file(folder / "weights.safetensors"))
    body.requires_grad_(False)
    return backbone, body.eval()


def weights_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
