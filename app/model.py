"""The exported model: classifies a picture file and computes Grad-CAM. It needs neither torch nor params.yaml."""

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

TASKS = ("single_label",)  # tasks that the page supports
MAX_PIXELS = 100_000_000  # decoding takes 15 bytes per pixel, one picture at a time


class Result(NamedTuple):
    """The probability of each class, the square that the network got, and the square with its Grad-CAM.

    `heat` is None if Grad-CAM is empty: no region supports the predicted class.
    """

    probabilities: dict[str, float]
    square: Image.Image
    heat: Image.Image | None


class Model:
    """`model.onnx` and `model.json` of the stage `export`. Raises OSError; ValueError if they do not match."""

    def __init__(self, folder: Path) -> None:
        self.about: dict[str, Any] = json.loads((folder / "model.json").read_text(encoding="utf-8"))
        onnx = (folder / "model.onnx").read_bytes()
        try:
            self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
            size_px = self.about["preprocessing"]["square"]["size_px"]
            probabilities, _ = self.session.run(
                ["probabilities", "heat"], {"pixels": np.zeros((1, 3, size_px, size_px), "uint8")}
            )
            task = self.about["task"]
            self.classes: list[str] = task["classes"] if task["name"] in TASKS else []
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise ValueError(f"{type(error).__name__}: {error}") from None
        if not self.classes:
            raise ValueError(f"the task of the model is {task['name']}, but this page supports only {', '.join(TASKS)}")
        if probabilities.shape[1] != len(self.classes):
            raise ValueError(f"model.onnx has {probabilities.shape[1]} classes, but model.json has {len(self.classes)}")

    def classify(self, data: bytes) -> Result:
        """Classifies a picture file's bytes. Raises BadPictureError, MemoryError."""
        preprocessing = self.about["preprocessing"]
        jpeg = resized(data, cast("Resizing", SimpleNamespace(**preprocessing["resize"])), MAX_PIXELS)
        probabilities, heat = self.session.run(
            ["probabilities", "heat"], {"pixels": network_input(jpeg, preprocessing)[None]}
        )
        class_probabilities = dict(zip(self.classes, map(float, probabilities[0]), strict=True))
        square = Image.fromarray(rgb(cut_square(jpeg, preprocessing["centre_crop"]["share_of_shorter_side"])))
        return Result(class_probabilities, square, overlay(square, heat[0]) if heat[0].any() else None)
