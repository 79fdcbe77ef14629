"""What the app gives the network is what training gave it. The page itself: `make test-browser`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.model import Model


class Session:
    """Stands in for ONNX Runtime: a network that saw no class anywhere."""

    def run(self, names: list[str], given: dict[str, np.ndarray]) -> list[np.ndarray]:
        self.pixels = given["pixels"]
        return [np.array([[0.75, 0.25]], np.float32), np.zeros((1, 4, 4), np.float32)]


def test_a_class_that_nothing_speaks_for_has_no_heat(tmp_path: Path) -> None:
    model = object.__new__(Model)
    model.session = Session()
    model.classes = ["a", "b"]
    model.about = {
        "preprocessing": {
            "resize": {"size_px": 48, "jpeg_quality": 95},
            "centre_crop": {"share_of_shorter_side": 1.0},
            "square": {"size_px": 32, "interpolation": "bicubic"},
        },
    }
    Image.new("L", (60, 90), 120).save(tmp_path / "grey.png")
    result = model.classify((tmp_path / "grey.png").read_bytes())
    assert (result.probabilities, result.heat) == ({"a": 0.75, "b": 0.25}, None)
    assert (result.square.mode, result.square.size) == ("RGB", (48, 48))
    assert model.session.pixels.shape == (1, 3, 32, 32)
    assert model.session.pixels.dtype == np.uint8


def test_without_an_export_it_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        Model(tmp_path)
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"model\.onnx"):
        Model(tmp_path)
