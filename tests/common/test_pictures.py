"""The square that the network sees: the centre, by the weights' own interpolation, normalised by their mean and std."""

import io

import numpy as np
import pytest
from PIL import Image

from stages.common.network import load_network
from stages.common.pictures import Pictures
from stages.common.shards import Shards
from tests.common.test_network import CPU
from tests.conftest import Project


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels(reproduced: Project, interpolation: str) -> None:
    shards = Shards(reproduced.folder / "data/resize/shards")
    shas = list(shards.sha256s())[:3]
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    about = load_network(reproduced.folder / "data/unfreeze/model.safetensors").about.model_copy(
        update={"mean": mean, "std": std, "interpolation": interpolation, "crop_pct": 1.0}
    )
    (batch,) = Pictures(shards, shas, about, 40, 4, CPU).batches()
    assert (batch.rows.tolist(), batch.padding) == ([0, 1, 2, 2], 1)
    for row, sha in enumerate(shas):
        image = Image.open(io.BytesIO(shards.blob(sha)))
        side = min(image.size)
        left, top = round((image.width - side) / 2), round((image.height - side) / 2)
        cut = image.crop((left, top, left + side, top + side)).resize((40, 40), Image.Resampling[interpolation.upper()])
        levels = (batch.x[row].permute(1, 2, 0).numpy() * std + mean) * 255
        apart = np.abs(levels - np.asarray(cut))  # torch rounds other than Pillow, here and there
        assert apart.max() < 3.01
        assert apart.mean() < 0.05
