"""The whole network: body and head in three layer groups, saved with everything needed to use it."""

from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stages.models.networks.backbone import Body
from stages.models.networks.head import Head, HeadConfig
from stages.runtime.params import SizePx
from stages.tasks.registry import AnyTask, check_task_known
from stages.vision.batches.preprocessing import Backbone, Resizing

N_GROUPS = 3


class Network(nn.Module):
    """Computes outputs (n, n_outputs) from normalised images (n, 3, h, w).

    `backbone`: the description of the pretrained body. `size_px`: the side of the pictures in the last training.
    """

    def __init__(self, backbone: Backbone, resize: Resizing, body: Body, head: Head, size_px: int) -> None:
        super().__init__()
        self.backbone, self.resize, self.body, self.head, self.size_px = backbone, resize, body, head, size_px

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.body(images))
        return outputs

    @property
    def task(self) -> AnyTask:
        """The task that the network was trained for."""
        return self.head.config.task

    def groups(self) -> list[list[nn.Parameter]]:
        """Returns the parameters of the early body, the late body and the head."""
        return [*self.body.groups(), list(self.head.parameters())]


class NetworkConfig(BaseModel):
    """Everything except the weights that is needed to build a network. The model file contains both."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backbone: Backbone
    resize: Resizing
    head: HeadConfig
    size_px: SizePx


def network_config(network: Network) -> NetworkConfig:
    return NetworkConfig(
        backbone=network.backbone, resize=network.resize, head=network.head.config, size_px=network.size_px
    )


def save_network(network: Network, path: Path) -> None:
    """Writes the weights and the `NetworkConfig` to one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    # The metadata has only one key, because safetensors writes several in an order that changes between processes.
    save_file(tensors, path, metadata={"network": network_config(network).model_dump_json()})


def load_network(path: Path) -> Network:
    """Returns the network that `save_network` wrote, on the CPU.

    Raises StageError if this version does not know the network's task.
    """
    with safe_open(path, framework="pt") as file:
        config_json = file.metadata()["network"]
        check_task_known(config_json, ["head", "task"], path)
        config = NetworkConfig.model_validate_json(config_json)
        body, head = Body(config.backbone.name), Head(config.head)
        network = Network(config.backbone, config.resize, body, head, config.size_px)
        network.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    return network
