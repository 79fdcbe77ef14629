"""The body: a timm network up to its last feature map, then concatenated max and average pooling.

Preprocessing is the weights' own and is decided once, by the stage `backbone`; every later stage reads `backbone.json`.
"""

import hashlib
import json
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


class Body(nn.Module):
    """Images (n, 3, s, s) to features (n, 2C): adaptive max and average pooling side by side, as fast.ai 0.7."""

    def __init__(self, name: str) -> None:
        super().__init__()
        if not timm.is_model(name):  # `hf-hub:...` and `local-dir:...` would let a model file choose what is built
            raise StageError(f"{name} is no model of timm {timm.__version__}: `timm.list_models()` names them")
        net: Any = timm.create_model(name, pretrained=False, num_classes=0, global_pool="")
        self.net: Any = net
        self.n_features: int = 2 * net.num_features

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """The last feature map, float32 (n, C, places): the rows of a square one after the other."""
        features = self.net.forward_features(images)
        if features.ndim == 3:  # (n, tokens, C): transformers; class and register tokens carry no place
            features = features[:, getattr(self.net, "num_prefix_tokens", 0) :].transpose(1, 2)
        elif getattr(self.net, "output_fmt", "NCHW") == "NHWC":
            features = features.flatten(1, 2).transpose(1, 2)
        else:
            features = features.flatten(2)
        maps: torch.Tensor = features.float()
        return maps

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return pool(self.maps(images))

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


def load_backbone(folder: Path) -> tuple[Backbone, Body]:
    """From the stage backbone's folder: its description and the body with those weights, in eval mode, frozen."""
    about = Backbone.model_validate(json.loads((folder / "backbone.json").read_text(encoding="utf-8")))
    body = Body(about.name)
    body.net.load_state_dict(load_file(folder / "weights.safetensors"))
    body.requires_grad_(False)
    return about, body.eval()


def weights_sha256(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
