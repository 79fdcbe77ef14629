"""The whole network: body and head in three layer groups, saved with all that is needed to use it."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stages.models.networks.backbone import Body
from stages.models.networks.head import Head, HeadShape
from stages.runtime.params import SizePx
from stages.tasks.registry import AnyTask, check_known
from stages.vision.batches.preprocessing import Backbone, Resizing

N_GROUPS = 3


class Network(nn.Module):
    """Normalised images (n, 3, h, w) to outputs (n, n_outputs). `size_px` is the side that it was last trained at."""

    def __init__(self, about: Backbone, resize: Resizing, body: Body, head: Head, size_px: int) -> None:
        super().__init__()
        self.about, self.resize, self.body, self.head, self.size_px = about, resize, body, head, size_px

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body(images))
        return outputs

    @property
    def task(self) -> AnyTask:
        """What it has learnt."""
        return self.head.shape.task

    def groups(self) -> list[list[nn.Parameter]]:
        """[early body, late body, head]."""
        return [*self.body.groups(), list(self.head.parameters())]


class NetworkShape(BaseModel):
    """What is needed beside the weights to build a network again: stored with them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Backbone
    resize: Resizing
    head: HeadShape
    size_px: SizePx


def shape_of(network: Network) -> NetworkShape:
    return NetworkShape(backbone=network.about, resize=network.resize, head=network.head.shape, size_px=network.size_px)


def save_network(network: Network, path: Path) -> None:
    """Weights and `NetworkShape` in one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    shape = shape_of(network)
    # One key: safetensors writes several in an order that changes from process to process.
    save_file(tensors, path, metadata={"network": shape.model_dump_json()})


def load_network(path: Path) -> Network:
    """The network that `save_network` wrote, on the CPU. Raises StageError: one of a task that is not known here."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()["network"]
        check_known(about, ["head", "task"], path)
        shape = NetworkShape.model_validate_json(about)
        network = Network(shape.backbone, shape.resize, Body(shape.backbone.name), Head(shape.head), shape.size_px)
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    return network
