"""The head: BatchNorm, Dropout, Linear, ReLU, BatchNorm, Dropout, Linear, Kaiming-initialised (fast.ai 0.7)."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stages.runtime.params import Fraction, Positive, Section
from stages.tasks.registry import AnyTask, check_task_known


class HeadParams(Section):
    hidden: Annotated[int, Field(ge=1, le=65536)]
    dropout: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | Fraction


class HeadConfig(Section):
    """Everything except the weights that is needed to build a head. The head's file contains both."""

    n_features: Positive
    hidden: Positive
    dropout: tuple[Fraction, Fraction]
    task: AnyTask


class Head(nn.Sequential):
    """Computes the task's outputs (n, n_outputs) from features (n, 2C), where C is the body's number of channels."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(
            nn.BatchNorm1d(config.n_features),
            nn.Dropout(config.dropout[0]),
            nn.Linear(config.n_features, config.hidden),
            nn.ReLU(),
            nn.BatchNorm1d(config.hidden),
            nn.Dropout(config.dropout[1]),
            nn.Linear(config.hidden, config.task.n_outputs),
        )
        self.config = config


def new_head(params: HeadParams, n_features: int, task: AnyTask, seed: int) -> Head:
    """Returns a new head. Its weights are Kaiming-normal, drawn with a separate random generator, seeded with `seed`;
    its biases are zero.

    `params.dropout` is one number for both layers (fast.ai 0.7's `ps=0.5`) or a pair.
    """
    first, last = params.dropout if isinstance(params.dropout, list) else [params.dropout] * 2
    config = HeadConfig(n_features=n_features, hidden=params.hidden, dropout=(first, last), task=task)
    head = Head(config)
    generator = torch.Generator().manual_seed(seed)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return head


def save_head(head: Head, path: Path) -> None:
    """Writes the weights and the `HeadConfig` to one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(tensors, path, metadata={"head": head.config.model_dump_json()})


def load_head(path: Path) -> Head:
    """Returns the head that `save_head` wrote, on the CPU.

    Raises StageError if this version does not know the head's task.
    """
    with safe_open(path, framework="pt") as file:
        config_json = file.metadata()["head"]
        check_task_known(config_json, ["task"], path)
        head = Head(HeadConfig.model_validate_json(config_json))
        head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    return head
