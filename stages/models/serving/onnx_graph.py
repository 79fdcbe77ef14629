"""Exports the network as an ONNX graph, which computes probabilities and Grad-CAM heat maps from uint8 RGB squares.

torch.onnx needs torch's compiler, which no other stage loads: see stages/runtime/lazy_torch.py.
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
from stages.models.serving.grad_cam import GradCam

INPUT, OUTPUTS = "pixels", ["probabilities", "heat"]


class UInt8Network(nn.Module):
    """Normalises RGB squares, uint8 (n, 3, s, s). Returns probabilities (n, classes), and heat maps (n, h, w) that show
    where the class with the highest probability was seen."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.explained = GradCam(network.body, network.head)
        for name in ("mean", "std"):
            values = torch.tensor(getattr(network.backbone, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs: tuple[torch.Tensor, torch.Tensor] = self.explained((pixels.float() / 255 - self.mean) / self.std)
        return outputs


def write_onnx(network: Network, path: Path) -> None:
    """Writes a float32 graph for any number of pictures of `network.size_px`. The same network gives the same bytes."""
    module = UInt8Network(network).eval()
    # The example has two pictures, because the exporter would treat a dimension of 1 as a constant.
    example = torch.zeros(2, 3, network.size_px, network.size_px, dtype=torch.uint8)
    with torch.no_grad(), warnings.catch_warnings(), logging_disabled():
        warnings.simplefilter("ignore")  # the exporter warns about its own code
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
    assert program is not None  # noqa: S101 (None only if a path is given)
    model = program.model_proto
    remove_debug_info(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


@contextmanager
def logging_disabled() -> Iterator[None]:
    """Disables logging for a `with` block, because the exporter also logs the errors that it raises."""
    previous_level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(previous_level)


def remove_debug_info(model: onnx.ModelProto) -> None:
    """Removes the exporter's debug information: stack traces with this machine's paths, names of torch values."""
    del model.metadata_props[:]
    for graph in (model.graph, *model.functions):
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.value_info, *getattr(graph, "initializer", ())):
            part.doc_string = ""
            del part.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
