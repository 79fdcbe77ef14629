"""The head: BatchNorm, Dropout, Linear, ReLU, BatchNorm, Dropout, Linear, Kaiming-initialised (fast.ai 0.7)."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from stages.runtime.params import Fraction, Positive, Section
from stages.tasks.registry import AnyTask, check_known


class HeadParams(Section):
    hidden: Annotated[int, Field(ge=1, le=65536)]
    dropout: Annotated[list[Fraction], Field(min_length=2, max_length=2)] | Fraction


class HeadShape(Section):
    """All that is needed to build a head, including its task; stored in the head's file."""

    n_features: Positive
    hidden: Positive
    dropout: tuple[Fraction, Fraction]
    task: AnyTask


class Head(nn.Sequential):
    """Features (n, 2C) to the task's outputs (n, n_outputs)."""

    def __init__(self, shape: HeadShape) -> None:
        super().__init__(
            nn.BatchNorm1d(shape.n_features),
            nn.Dropout(shape.dropout[0]),
            nn.Linear(shape.n_features, shape.hidden),
            nn.ReLU(),
            nn.BatchNorm1d(shape.hidden),
            nn.Dropout(shape.dropout[1]),
            nn.Linear(shape.hidden, shape.task.n_outputs),
        )
        self.shape = shape


def new_head(params: HeadParams, n_features: int, task: AnyTask, seed: int) -> Head:
    """A new head with Kaiming-normal weights from its own generator, and zero biases.

    `dropout` is one number for both layers (0.7's `ps=0.5`) or a pair.
    """
    first, last = params.dropout if isinstance(params.dropout, list) else [params.dropout] * 2
    shape = HeadShape(n_features=n_features, hidden=params.hidden, dropout=(first, last), task=task)
    head = Head(shape)
    generator = torch.Generator().manual_seed(seed)
    for layer in head:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
    return head


def save_head(head: Head, path: Path) -> None:
    """Weights and shape in one safetensors file."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in head.state_dict().items()}
    save_file(tensors, path, metadata={"head": head.shape.model_dump_json()})


def load_head(path: Path) -> Head:
    """The head that `save_head` wrote, on the CPU. Raises StageError if its task is not known here."""
    with safe_open(path, framework="pt") as file:
        about = file.metadata()["head"]
        check_known(about, ["task"], path)
        shape = HeadShape.model_validate_json(about)
        head = Head(shape)
        head.load_state_dict({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
    return head
