"""An augmented square shows the pixels that the picture has at the positions of the geometry."""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from stages.training.compute.device import Compute
from stages.vision.batches.geometry import Geometry, geometry
from stages.vision.batches.network_input import square
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Backbone
from stages.vision.batches.transforms import Draws, TransformsParams, draw, draw_each

CPU = Compute(torch.device("cpu"), torch.float32)
Floats = npt.NDArray[np.float32]


class Blobs(dict[str, bytes]):
    def blob(self, sha256: str) -> bytes:
        return self[sha256]


def pictures(
    images: Sequence[Image.Image], size_px: int, batch_size: int = 1, interpolation: str = "bilinear"
) -> Pictures:
    """Returns pictures without normalisation: the values of their squares are 0 to 1."""
    backbone = Backbone.model_validate(
        {"name": "", "sha256": "", "source": "", "mean": [0.0] * 3, "std": [1.0] * 3, "crop_pct": 1.0}
        | {"interpolation": interpolation}
    )
    blobs = Blobs()
    for number, image in enumerate(images):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=100, subsampling=0)
        blobs[f"{number:064x}"] = buffer.getvalue()
    return Pictures(blobs, list(blobs), backbone, size_px, batch_size, CPU)


def drawn(n: int = 1, **changes: float) -> Draws:
    """Returns draws without lighting; by default they change nothing."""
    values = {"zoom": 1, "crop_x": 0.5, "crop_y": 0.5, "angle": 0, "flip": 1, "quarter_turns": 0, "contrast": 1}
    values |= {"brightness": 0, "max_angle": np.pi / 4} | changes
    return Draws(**{name: np.full(n, value, np.float32) for name, value in values.items()})


def levels(feed: Pictures, draws: Draws | None) -> Floats:
    """Returns the pixels of all pictures, (n, s, s, 3), 0 to 255."""
    shown = [batch.x[: len(batch.x) - batch.padding] for batch in feed.batches(draws=draws)]
    return 255 * torch.cat(shown).permute(0, 2, 3, 1).numpy()


def ramp(width: int, height: int) -> Image.Image:
    """Returns a picture whose red grows to the right and whose green grows down: they show the position of a pixel."""
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return Image.fromarray(np.stack([x * 255 / width, y * 255 / height, 0 * x], axis=2).round().astype(np.uint8))


def middles(size_px: int) -> npt.NDArray[np.float64]:
    """Returns the middles of all output pixels, row by row, (n, 2)."""
    x, y = np.meshgrid(np.arange(size_px) + 0.5, np.arange(size_px) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=1)


def expected_of_ramp(width: int, height: int, positions: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Returns red and green at positions (n, 2); outside the picture, those of the reflection."""
    size: npt.NDArray[np.float64] = np.array([width, height], np.float64)
    inside: npt.NDArray[np.float64] = size - np.abs(np.abs(positions) - size)
    return inside * 255 / size


@pytest.mark.parametrize("size_px", [40, 112, 250])  # decoded at half the size, whole, and enlarged
@pytest.mark.parametrize("angle_deg", [-45, -10, 2, 30])
def test_corners_show_what_lies_there(size_px: int, angle_deg: float) -> None:
    """A square of 200 px in a picture of 400 x 300: at every angle, the whole square is inside the picture."""
    angle = np.deg2rad(angle_deg)
    draws = drawn(zoom=1.5, crop_x=0.6, crop_y=0.45, angle=angle)
    (shown,) = levels(pictures([ramp(400, 300)], size_px), draws)
    positions = geometry(400, 300, size_px, 1, 1.5, 0.6, 0.45, angle).to_input(middles(size_px))
    assert (positions > 0).all()
    assert (positions < (400, 300)).all()
    expected = expected_of_ramp(400, 300, positions).reshape(size_px, size_px, 2)
    assert np.abs(shown[..., :2] - expected).max() < 3  # 255 levels; mirrored corners were up to 60 away


def test_outside_the_picture_is_its_reflection() -> None:
    draws = drawn(angle=np.deg2rad(10))
    (shown,) = levels(pictures([ramp(300, 300)], 112), draws)
    positions = geometry(300, 300, 112, 1, angle=np.deg2rad(10)).to_input(middles(112))
    outside = ((positions < 0) | (positions > 300)).any(axis=1)
    assert 0.03 < outside.mean() < 0.1
    expected = expected_of_ramp(300, 300, positions).reshape(112, 112, 2)
    difference = np.abs(shown[..., :2] - expected)
    assert difference.max() < 6  # the reflected ramp bends at the edge, and resizing rounds the bend off
    assert difference.mean() < 0.7


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size_px", [9, 64, 112])
def test_without_rotation_it_is_the_plain_square_mirrored_and_turned(size_px: int, interpolation: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 131, 3), np.uint8)
    feed = pictures([Image.fromarray(noise)], size_px, interpolation=interpolation)
    (plain,) = levels(feed, None)
    for flip in (1, -1):
        for turns in range(4):
            (shown,) = levels(feed, drawn(flip=flip, quarter_turns=turns))
            assert np.abs(shown - np.rot90(plain, turns)[:, ::flip]).max() < 0.01


def test_the_plain_square_is_made_of_whole_levels() -> None:
    """Nothing is sampled: the pixels are the bytes that torch resized, divided by 255."""
    noise = np.random.default_rng(0).integers(0, 256, (90, 131, 3), np.uint8)
    feed = pictures([Image.fromarray(noise)], 64)
    (batch,) = feed.batches()
    cut = feed.cut(0)
    assert cut.dtype == torch.uint8
    assert torch.equal(batch.x[0], cut.permute(2, 0, 1).float() / 255)


def test_a_turn_by_little_is_near_no_turn() -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)).resize((400, 320))
    feed = pictures([image], 112)
    straight, turned = (levels(feed, drawn(zoom=1.1, angle=angle))[0] for angle in (0, 1e-6))
    difference = np.abs(straight - turned)  # half a pixel of the picture, whose levels differ by up to 15 per pixel
    assert difference.max() < 10
    assert difference.mean() < 2


def test_a_disc_lands_where_the_geometry_says() -> None:
    """In 200 draws the centre of mass of the disc is at most a pixel away, mostly less than a quarter."""
    width, height, size_px, radius = 400, 300, 112, 12
    transforms = TransformsParams(kind="top_down", max_zoom=1.5, max_rotate_deg=45, max_lighting=0)
    draws = draw(transforms, 200, [7])
    assert draws is not None
    rng, size, images, expected_positions = np.random.default_rng(1), np.array([width, height]), [], []
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    shapes = [square_of(width, height, size_px, draws, row) for row in range(200)]
    for shape in shapes:
        position = shape.to_input(rng.uniform(12, size_px - 12, (1, 2)))[0].clip(radius, size - radius)
        images.append(Image.fromarray((255 * (np.hypot(x - position[0], y - position[1]) < radius)).astype(np.uint8)))
        expected_positions.append(shape.to_output(position[None])[0])
    shown = levels(pictures(images, size_px, 8), draws)[..., 0]
    positions = middles(size_px)
    difference = np.array(
        [
            np.hypot(*(np.average(positions, axis=0, weights=weights_near(pixels, positions, position)) - position))
            for pixels, position in zip(shown, expected_positions, strict=True)
            if (np.abs(position - size_px / 2) < size_px / 2 - 8).all()
        ]
    )
    assert len(difference) > 190
    assert difference.max() < 1
    assert np.median(difference) < 0.25


def weights_near(
    shown: Floats, positions: npt.NDArray[np.float64], position: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Returns the pixels near `position` as weights. Others are 0: the reflection of the disc is white too."""
    return np.where(np.hypot(*(positions - position).T) < 11, shown.ravel(), 0).clip(0) + 1e-9


def square_of(width: int, height: int, size_px: int, draws: Draws, row: int) -> Geometry:
    zoom, x, y, angle, flip, turns = (float(column[row]) for column in draws[:6])
    return geometry(width, height, size_px, 1, zoom, x, y, angle, flip, turns)


def test_to_output_undoes_to_input() -> None:
    shape = geometry(400, 300, 112, 0.875, 1.2, 0.3, 0.9, angle=0.4, flip=-1, quarter_turns=3)
    points = np.random.default_rng(0).uniform(-50, 150, (20, 2))
    np.testing.assert_allclose(shape.to_output(shape.to_input(points)), points, atol=1e-9)


def test_the_geometry_of_the_plain_square_is_its_box() -> None:
    corners = geometry(400, 300, 100, 1).to_input([[0, 0], [100, 100], [0, 100]])
    np.testing.assert_allclose(corners, [[50, 0], [350, 300], [50, 300]], atol=1e-9)
    right, up = geometry(400, 300, 100, 1, quarter_turns=1).to_input([[0, 0], [100, 0]])
    np.testing.assert_allclose([right, up], [[350, 0], [350, 300]], atol=1e-9)  # as np.rot90: the right side is on top


@pytest.mark.parametrize("kind", ["basic", "side_on", "top_down"])
@pytest.mark.parametrize("max_rotate_deg", [0, 10, 180])
def test_a_picture_becomes_the_same_alone_and_among_others(kind: str, max_rotate_deg: float) -> None:
    """Pictures of every shape, in another order and in batches of another size, have the same bits."""
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (*rng.integers(40, 150, 2), 3), np.uint8)) for _ in range(32)]
    images += [Image.new("L", (300, 41), 9), Image.new("L", (40, 2000), 200)]
    feed = pictures(images, 48, 16)
    transforms = TransformsParams.model_validate(
        {"kind": kind, "max_zoom": 1.3, "max_rotate_deg": max_rotate_deg, "max_lighting": 0.05}
    )
    all_levels = levels(feed, draw_each(transforms, feed.sha256s, [3]))
    order = [33, 5, 32, 17, 2]
    shas = [feed.sha256s[row] for row in order]
    reordered = Pictures(feed.store, shas, feed.backbone, 48, 32, CPU)
    np.testing.assert_array_equal(levels(reordered, draw_each(transforms, shas, [3])), all_levels[order])


@pytest.mark.parametrize("size", [(1, 1), (1, 100), (100, 1), (3, 2), (5000, 50)])
@pytest.mark.parametrize("size_px", [1, 7, 64])
def test_pictures_of_any_shape_are_turned(size: tuple[int, int], size_px: int) -> None:
    """A picture of one colour keeps the colour, also in its reflection."""
    feed = pictures([Image.new("RGB", size, (40, 80, 160))], size_px)
    for angle in np.deg2rad([-180, -45, 0, 1, 33, 90]):
        for zoom, position in ((1, 0), (1.1, 1), (10, 0.7)):
            draws = drawn(zoom=zoom, crop_x=position, crop_y=position, angle=angle, max_angle=np.pi)
            np.testing.assert_allclose(levels(feed, draws)[0, :, :, 0], 40, atol=2.5)


@pytest.mark.parametrize(
    ("arguments", "box"),
    [
        ((400, 300, 1.0, 0.5, 0.5), (50, 0, 350, 300)),
        ((300, 400, 1.0, 0.0, 1.0), (0, 100, 300, 400)),
        ((400, 300, 1.5, 1.0, 0.0), (200, 0, 400, 200)),
    ],
)
def test_square(arguments: tuple[int, int, float, float, float], box: tuple[int, ...]) -> None:
    assert square(*arguments) == pytest.approx(box)
