"""The network as an ONNX graph: bytes of RGB squares to probabilities and, for the likeliest class, where it was seen.

torch.onnx traces with torch's compiler, which is loaded then and in no other stage: see stages/runtime/lazy_torch.py.
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import nn

from stages.models.networks.network import Network
from stages.models.serving.grad_cam import Explained

INPUT, OUTPUTS = "pixels", ["probabilities", "heat"]


class Standalone(nn.Module):
    """RGB squares as bytes, uint8 (n, 3, s, s), to (probabilities (n, classes), heat (n, h, w)): normalises itself."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.explained = Explained(network.body, network.head)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network.about, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        said: tuple[torch.Tensor, torch.Tensor] = self.explained((pixels.float() / 255 - self.mean) / self.std)
        return said


def write_onnx(network: Network, path: Path) -> None:
    """float32, any number of pictures at `network.size_px`; the same bytes for the same network."""
    module = Standalone(network).eval()
    # Two pictures: the exporter takes a dimension of 1 for a constant.
    example = torch.zeros(2, 3, network.size_px, network.size_px, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings(), no_log():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            external_data=False,
            input_names=[INPUT],
            output_names=OUTPUTS,
            dynamic_shapes={"pixels": {0: torch.export.Dim("n")}},
            verbose=False,
        )
    assert program is not None  # noqa: S101 (it is where no path is given)
    model = program.model_proto
    without_traces(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def no_log() -> Iterator[None]:
    """The exporter logs what it raises as well."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def without_traces(model: onnx.ModelProto) -> None:
    """Takes out what the exporter notes for who debugs it: stack traces with the paths of this machine, names of its
    values in torch."""
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
            part.doc_string = ""
            del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
