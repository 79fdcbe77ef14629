"""What the app gives the network is what training gave it. The page itself: `make test-browser`."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from app.model import Model, cut, pixels
from stages.training.compute.device import Compute
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Backbone


class OnePicture:
    """Stands in for the shards."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def blob(self, sha256: str) -> bytes:
        return self.data


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height", "crop_pct", "size_px"), [(340, 453, 1, 112), (511, 340, 0.875, 224)])
def test_the_network_gets_the_same_square(
    interpolation: str, width: int, height: int, crop_pct: float, size_px: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)
    about = Backbone.model_validate(
        {"name": "", "sha256": "", "source": "", "mean": [0.0] * 3, "std": [1.0] * 3, "crop_pct": crop_pct}
        | {"interpolation": interpolation}
    )
    store, sha256 = OnePicture(buffer.getvalue()), hashlib.sha256(buffer.getvalue()).hexdigest()
    compute = Compute(torch.device("cpu"), torch.float32)
    batch = next(Pictures(store, [sha256], about, size_px, 1, compute).batches())
    expected = (batch.x[0] * 255).round().permute(1, 2, 0).numpy()
    wants = {
        "centre_crop": {"share_of_shorter_side": crop_pct},
        "square": {"size_px": size_px, "interpolation": interpolation},
    }
    difference = np.abs(np.asarray(pixels(buffer.getvalue(), wants), np.float32) - expected)
    assert difference.max() <= 2
    assert difference.mean() < 0.1
    assert abs(cut(buffer.getvalue(), wants).width - 340 * crop_pct) < 1


def test_without_an_export_it_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"model\.json"):
        Model(tmp_path)
    (tmp_path / "model.json").write_text("{}", encoding="utf-8")
    with pytest.raises(FileNotFoundError, match=r"model\.onnx"):
        Model(tmp_path)
