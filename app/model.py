"""The exported model: a picture's bytes in, classes and Grad-CAM out. It needs neither torch nor the stages' params."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import onnxruntime
from PIL import Image

from stages.reporting.results.overlay import overlay
from stages.vision.batches.network_input import cut_square, network_input, rgb
from stages.vision.files.resized import resized

if TYPE_CHECKING:
    from stages.vision.batches.preprocessing import Resizing

TASKS = ("single_label",)  # that the page can show
MAX_PIXELS = 100_000_000  # at 15 bytes each while it is decoded, one picture at a time


class Seen(NamedTuple):
    """What the network says of a picture: each class's probability, the square it was given, where it saw the class.

    `heat` is None where there is no positive evidence for the class in any place.
    """

    probabilities: dict[str, float]
    square: Image.Image
    heat: Image.Image | None


class Model:
    """`model.onnx` and `model.json` as the stage `export` writes them. Raises OSError; ValueError: they are no pair."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        onnx = (folder / "model.onnx").read_bytes()
        try:
            self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
            size_px = self.about["preprocessing"]["square"]["size_px"]
            said, _ = self.session.run(
                ["probabilities", "heat"], {"pixels": np.zeros((1, 3, size_px, size_px), "uint8")}
            )
            task = self.about["task"]
            self.classes: list[str] = task["classes"] if task["name"] in TASKS else []
        except Exception as error:  # ONNX Runtime's exceptions have no common base of their own
            raise ValueError(f"{type(error).__name__}: {error}") from None
        if not self.classes:
            raise ValueError(f"a model of the task {task['name']}, and this page shows {', '.join(TASKS)}")
        if said.shape[1] != len(self.classes):
            raise ValueError(f"model.onnx tells {said.shape[1]} classes apart, model.json names {len(self.classes)}")

    def look(self, data: bytes) -> Seen:
        """Of a picture file's bytes. Raises BadPictureError, MemoryError."""
        wants = self.about["preprocessing"]
        jpeg = resized(data, cast("Resizing", SimpleNamespace(**wants["resize"])), MAX_PIXELS)
        probabilities, heat = self.session.run(["probabilities", "heat"], {"pixels": network_input(jpeg, wants)[None]})
        by_class = dict(zip(self.classes, map(float, probabilities[0]), strict=True))
        square = Image.fromarray(rgb(cut_square(jpeg, wants["centre_crop"]["share_of_shorter_side"])))
        return Seen(by_class, square, overlay(square, heat[0]) if heat[0].any() else None)
