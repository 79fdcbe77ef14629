"""The body: a timm network up to its last feature map, then concatenated max and average pooling.

The weights determine the preprocessing. The stage `backbone` stores it in `backbone.json`, which later stages read.
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
    """(n, C, positions) to (n, 2C): the maximum, then the mean."""
    return torch.cat([maps.amax(2), maps.mean(2)], dim=1)


def n_prefix_tokens(net: Any, n_tokens: int) -> int:
    """Number of class and register tokens, which come first. VOLO and others do not state it: then 1 if that leaves a
    square number of positions."""
    known: int | None = getattr(net, "num_prefix_tokens", None)
    return int(side_of(n_tokens) is None and side_of(n_tokens - 1) is not None) if known is None else known


def side_of(n_positions: int) -> int | None:
    """Side of a square map, None if the map is not square."""
    side = math.isqrt(n_positions)
    return side if side * side == n_positions else None


class Body(nn.Module):
    """Images (n, 3, s, s) to features (n, 2C): adaptive max and average pooling side by side, as fast.ai 0.7."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if not timm.is_model(
            name
        ):  # with `hf-hub:...` or `local-dir:...` a model file could choose the code that is run
            raise StageError(f"{name} is not a model of timm {timm.__version__}: `timm.list_models()` lists them")
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        self.name, self.net = name, net
        self.n_features: int = 2 * net.num_features
        self.made_for_px: int = net.pretrained_cfg["input_size"][-1]

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """The last feature map, float32 (n, C, positions), row by row."""
        features = self.net.forward_features(images)
        if features.ndim == 3:  # (n, tokens, C): transformers; class and register tokens have no position
            features = features[:, n_prefix_tokens(self.net, features.shape[1]) :].transpose(1, 2)
        elif getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            features = features.flatten(1, 2).transpose(1, 2)
        else:
            features = features.flatten(2)
        maps: torch.Tensor = features.float()
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return pool(self.maps(images))

    def refuses(self, size_px: int) -> str | None:
        """Why the network cannot process pictures of that size, found by trying one; None if it can."""
        try:
            device = next(self.parameters()).device
            with evaluating(self), torch.no_grad():
                shape = tuple(self(torch.zeros(1, 3, size_px, size_px, device=device)).shape)
        except Exception as error:  # each network fails with another exception
            if "can't allocate memory" in str(error):  # not caused by the network
                return None
            return " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return None if shape == (1, self.n_features) else f"its features are {shape}"

    def check_size(self, size_px: int, key: str) -> None:
        """Raises StageError if the network refuses `size_px`, the value of the param `key`."""
        if (problem := self.refuses(size_px)) is not None:
            raise StageError(
                f"{key} is {size_px}, but {self.name} does not accept pictures of that size ({problem}): it was made "
                f"for {self.made_for_px}"
            )

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of the (early, late) body, divided after three fifths of timm's stages.

        For ResNets this is after `layer2`, where fast.ai 0.7 cuts resnet34 (child 6 of 8).
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
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode within the block, then each module's previous mode, set by its own `train`: LeViT's clears a cache."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.train(training)


def load_backbone(folder: Path) -> tuple[Backbone, Body]:
    """The description and the frozen body in eval mode, from the folder of the stage backbone."""
    about = Backbone.model_validate(json.loads((folder / "backbone.json").read_text(encoding="utf-8")))
    body = Body(about.name)
    body.net.load_state_dict(load_file(folder / "weights.safetensors"))
    body.requires_grad_(False)
    return about, body.eval()


def weights_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
