"""The body: a timm network up to its last feature map, then concatenated max and average pooling.

Preprocessing is the weights' own and is decided once, by the stage `backbone`; every later stage reads `backbone.json`.
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
    """(n, C, places) to (n, 2C): the largest, then the mean."""
    return torch.cat([maps.amax(2), maps.mean(2)], dim=1)


def n_prefix_tokens(net: Any, n_tokens: int) -> int:
    """Class and register tokens, which come first. VOLO and others do not tell how many: one, where places alone would
    be no square."""
    known: int | None = getattr(net, "num_prefix_tokens", None)
    return int(side_of(n_tokens) is None and side_of(n_tokens - 1) is not None) if known is None else known


def side_of(n_places: int) -> int | None:
    """Of a square map; None: it is none."""
    side = math.isqrt(n_places)
    return side if side * side == n_places else None


class Body(nn.Module):
    """Images (n, 3, s, s) to features (n, 2C): adaptive max and average pooling side by side, as fast.ai 0.7."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if not timm.is_model(name):  # `hf-hub:...` and `local-dir:...` would let a model file choose what is built
            raise StageError(f"{name} is no model of timm {timm.__version__}: `timm.list_models()` names them")
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        self.name, self.net = name, net
        self.n_features: int = 2 * net.num_features
        self.made_for_px: int = net.pretrained_cfg["input_size"][-1]

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """The last feature map, float32 (n, C, places): the rows of a square one after the other."""
        features = self.net.forward_features(images)
        if features.ndim == 3:  # (n, tokens, C): transformers; class and register tokens carry no place
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
        """Why it cannot take pictures of that size, found by trying one; None: it can."""
        try:
            device = next(self.parameters()).device
            with evaluating(self), torch.no_grad():
                shape = tuple(self(torch.zeros(1, 3, size_px, size_px, device=device)).shape)
        except Exception as error:  # each network fails in a way of its own
            if "can't allocate memory" in str(error):  # which says nothing of the network
                return None
            return " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return None if shape == (1, self.n_features) else f"its features are {shape}"

    def check_size(self, size_px: int, key: str) -> None:
        """`key`: the param that `size_px` is of. Raises StageError."""
        if (problem := self.refuses(size_px)) is not None:
            raise StageError(
                f"{key} is {size_px}, but {self.name} takes no pictures of that size ({problem}): it was made for "
                f"{self.made_for_px}"
            )

    def groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters of (early, late) body: timm's own stages, cut after three fifths of them.

        For ResNets that is after `layer2`, where fast.ai 0.7 cuts resnet34 (child 6 of 8).
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
    """In eval mode; afterwards each part is in the mode that it was in, by its own `train`: LeViT's clears a cache."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.train(training)


def load_backbone(folder: Path) -> tuple[Backbone, Body]:
    """From the stage backbone's folder: its description and the body with those weights, in eval mode, frozen."""
    about = Backbone.model_validate(json.loads((folder / "backbone.json").read_text(encoding="utf-8")))
    body = Body(about.name)
    body.net.load_state_dict(load_file(folder / "weights.safetensors"))
    body.requires_grad_(False)
    return about, body.eval()


def weights_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
