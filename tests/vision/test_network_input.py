"""The network's input by NumPy has the same bytes as that by torch."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from stages.training.compute.device import Compute
from stages.vision.batches.network_input import network_input, resample
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Backbone


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("channels", [1, 3])
def test_resample_gives_the_bytes_of_torch(interpolation: str, channels: int) -> None:
    """Noise, and black and white pixels, which show rounding and overshoot, are enlarged and reduced."""
    rng = np.random.default_rng(0)
    sizes = [(1, 1, 5), (1, 300, 64), (64, 64, 64), (64, 90, 64), (340, 340, 1), (37, 500, 36), (2, 2, 333)]
    sizes += [tuple(rng.integers(1, 400, 2)) + (int(rng.integers(1, 300)),) for _ in range(60)]
    for height, width, size_px in sizes:
        noise = rng.integers(0, 256, (height, width, channels), np.uint8)
        for pixels in (noise, np.where(noise > 127, 255, 0).astype(np.uint8)):
            planes = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
            by_torch = F.interpolate(planes, (size_px, size_px), mode=interpolation, antialias=True)[0]
            by_numpy = resample(pixels, size_px, interpolation)
            np.testing.assert_array_equal(by_numpy, by_torch.permute(1, 2, 0).numpy(), f"{height} {width} {size_px}")


class OnePicture:
    """Stands in for the shards."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def blob(self, sha256: str) -> bytes:
        return self.data


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    ("width", "height", "crop_pct", "size_px"), [(340, 453, 1.0, 112), (511, 340, 0.875, 224), (60, 47, 0.9, 64)]
)
def test_the_network_gets_what_training_gave_it(
    interpolation: str, mode: str, width: int, height: int, crop_pct: float, size_px: int
) -> None:
    """The pictures are decoded at a part of their size, decoded whole, and enlarged; the bytes are the same."""
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((width, height)).convert(mode).save(buffer, "JPEG", quality=95)
    backbone = Backbone.model_validate(
        {"name": "", "sha256": "", "source": "", "mean": [0.0] * 3, "std": [1.0] * 3, "crop_pct": crop_pct}
        | {"interpolation": interpolation}
    )
    compute = Compute(torch.device("cpu"), torch.float32)
    (batch,) = Pictures(OnePicture(buffer.getvalue()), ["a"], backbone, size_px, 1, compute).batches()
    preprocessing = {
        "centre_crop": {"share_of_shorter_side": crop_pct},
        "square": {"size_px": size_px, "interpolation": interpolation},
    }
    pixels = network_input(buffer.getvalue(), preprocessing)
    assert pixels.shape == (3, size_px, size_px)
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, (batch.x[0] * 255).round().numpy().astype(np.uint8))
