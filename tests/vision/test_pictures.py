"""The network gets the centre square, resized and normalised as its weights need it."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from stages.models.networks.network import load_network
from stages.store.shards import Shards
from stages.vision.batches.picture_feed import PictureFeed
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Resizing
from stages.vision.batches.transforms import TransformsParams
from stages.vision.files.resized import resized
from tests.conftest import Project
from tests.models.test_network import CPU


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels(reproduced: Project, interpolation: str) -> None:
    shards = Shards(reproduced.folder / "data/resize/shards")
    shas = list(shards.sha256s())[:3]
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.4]
    backbone = load_network(reproduced.folder / "data/unfreeze/model.safetensors").backbone.model_copy(
        update={"mean": mean, "std": std, "interpolation": interpolation, "crop_pct": 1.0}
    )
    (batch,) = Pictures(shards, shas, backbone, 40, 4, CPU).batches()
    assert (batch.rows.tolist(), batch.padding) == ([0, 1, 2, 2], 1)
    for row, sha in enumerate(shas):
        image = Image.open(io.BytesIO(shards.blob(sha)))
        side = min(image.size)
        left, top = round((image.width - side) / 2), round((image.height - side) / 2)
        cut = image.crop((left, top, left + side, top + side)).resize((40, 40), Image.Resampling[interpolation.upper()])
        levels = (batch.x[row].permute(1, 2, 0).numpy() * std + mean) * 255
        difference = np.abs(levels - np.asarray(cut))  # torch rounds some pixels differently from Pillow
        assert difference.max() < 3.01
        assert difference.mean() < 0.05


class Blobs(dict[str, bytes]):
    def blob(self, sha256: str) -> bytes:
        return self[sha256]


def test_a_grey_picture_is_kept_grey_and_seen_as_if_it_were_kept_in_colour(reproduced: Project) -> None:
    backbone = load_network(reproduced.folder / "data/unfreeze/model.safetensors").backbone
    noise = np.random.default_rng(0).integers(0, 256, (90, 130), np.uint8)
    grey, blobs = Image.fromarray(noise).resize((260, 180)), Blobs()
    for mode in ("L", "RGB"):
        buffer = io.BytesIO()
        grey.convert(mode).save(buffer, "PNG")
        blobs[mode] = resized(buffer.getvalue(), Resizing(size_px=150, jpeg_quality=95), 10**6)
        assert Image.open(io.BytesIO(blobs[mode])).mode == mode
    for size_px in (40, 100):  # decoded at half the size, and whole
        (batch,) = Pictures(blobs, ["L", "RGB"], backbone, size_px, 2, CPU).batches()
        assert np.array_equal(*batch.x.numpy())


def test_the_crop_is_the_share_that_the_backbone_wants(reproduced: Project) -> None:
    backbone = load_network(reproduced.folder / "data/unfreeze/model.safetensors").backbone
    gradient, blobs, seen = np.tile(np.arange(200, dtype=np.uint8), (200, 1)), Blobs(), []
    buffer = io.BytesIO()
    Image.fromarray(gradient).save(buffer, "JPEG", quality=100)
    blobs["ramp"] = buffer.getvalue()
    for crop_pct in (1.0, 0.5):
        changed = backbone.model_copy(update={"mean": [0.0] * 3, "std": [1.0] * 3, "crop_pct": crop_pct})
        (batch,) = Pictures(blobs, ["ramp"], changed, 50, 1, CPU).batches()
        seen.append(float(batch.x[0, 0, :, -1].mean() - batch.x[0, 0, :, 0].mean()) * 255)
    assert seen == pytest.approx([196, 98], abs=3)


def test_each_epoch_has_an_order_and_an_augmentation_of_its_own(reproduced: Project) -> None:
    network = load_network(reproduced.folder / "data/unfreeze/model.safetensors")
    shards = Shards(reproduced.folder / "data/resize/shards")
    shas = list(shards.sha256s())[:16]
    transforms = TransformsParams(kind="side_on", max_zoom=1.1, max_rotate_deg=10, max_lighting=0.05)
    pictures = Pictures(shards, shas, network.backbone, 40, 8, CPU)
    feed = PictureFeed(pictures, torch.zeros(16, dtype=torch.int64), transforms, [0])

    def pixels(epoch: int) -> tuple[list[int], torch.Tensor]:
        batches = list(feed.epoch(epoch))
        rows = np.concatenate([batch.rows for batch in batches])
        return rows.tolist(), torch.cat([batch.x for batch in batches])[np.argsort(rows)]

    (order, first), (again, same), (other, second) = pixels(0), pixels(0), pixels(1)
    assert order == again != other
    assert torch.equal(first, same)
    assert all(not torch.equal(one, two) for one, two in zip(first, second, strict=True))
