"""The whole network: body and head in three layer groups, saved with everything needed to use it."""

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
    """Normalised images (n, 3, h, w) to outputs (n, n_outputs). `size_px`: picture side in its last training."""

    def __init__(self, about: Backbone, resize: Resizing, body: Body, head: Head, size_px: int) -> None:
        super().__init__()
        self.about, self.resize, self.body, self.head, self.size_px = about, resize, body, head, size_px

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body(images))
        return outputs

    @property
    def task(self) -> AnyTask:
        """The task that the network was trained for."""
        return self.head.shape.task

    def groups(self) -> list[list[nn.Parameter]]:
        """[early body, late body, head]."""
        return [*self.body.groups(), list(self.head.parameters())]


class NetworkShape(BaseModel):
    """What is needed besides the weights to build a network; stored with them."""

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
    # One key: safetensors writes several keys in an order that changes between processes.
    save_file(tensors, path, metadata={"network": shape.model_dump_json()})


def load_network(path: Path) -> Network:
    """The network that `save_network` wrote, on the CPU. Raises StageError if its task is not known here."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()["network"]
        check_known(about, ["head", "task"], path)
        shape = NetworkShape.model_validate_json(about)
        network = Network(shape.backbone, shape.resize, Body(shape.backbone.name), Head(shape.head), shape.size_px)
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    return network
