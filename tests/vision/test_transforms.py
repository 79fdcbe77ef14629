"""Augmentation: what each set of transforms may do, its random numbers, and its lighting."""

import numpy as np
import pytest
import torch

from stages.vision.batches.transforms import Draws, TransformsParams, draw, light


def params(kind: str, **changes: float) -> TransformsParams:
    values = {"kind": kind, "max_zoom": 1.1, "max_rotate_deg": 10.0, "max_lighting": 0.05}
    return TransformsParams.model_validate(values | changes)


def picture(size: int = 8) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def drawn(kind: str, n: int, seed: list[int]) -> Draws:
    draws = draw(params(kind), n, seed)
    assert draws is not None
    return draws


def centre(n: int) -> Draws:
    zeros, ones = np.zeros(n, np.float32), np.ones(n, np.float32)
    return Draws(ones, zeros + 0.5, zeros + 0.5, zeros, ones, zeros, zeros, ones, zeros)


def test_none_draws_nothing() -> None:
    assert draw(params("none"), 4, [1]) is None


@pytest.mark.parametrize(
    ("kind", "flips", "turns"),
    [("basic", {1}, {0}), ("side_on", {1, -1}, {0}), ("top_down", {1, -1}, {0, 1, 2, 3})],
)
def test_what_each_set_may_do(kind: str, flips: set[int], turns: set[int]) -> None:
    draws = drawn(kind, 4000, [1])
    assert set(draws.flip) == flips
    assert set(draws.quarter_turns) == turns
    assert 1 <= draws.zoom.min() < 1.001 < 1.099 < draws.zoom.max() <= 1.1
    assert np.rad2deg(np.abs(draws.angle)).max() == pytest.approx(10, abs=0.1)
    assert (draws.angle == 0).mean() == pytest.approx(0.25, abs=0.03)
    assert np.abs(draws.brightness).max() == pytest.approx(0.05, abs=1e-3)
    assert (draws.contrast.min(), draws.contrast.max()) == pytest.approx((0.95, 1 / 0.95), abs=1e-3)


def test_draws_depend_on_the_key_and_the_row_alone() -> None:
    few, many = drawn("top_down", 5, [1, 2]), drawn("top_down", 50, [1, 2])
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:5])
    assert (drawn("top_down", 5, [1, 3]).angle != few.angle).any()


def test_lighting_is_about_the_pictures_own_mean() -> None:
    one = centre(1)
    x = picture() * 0.5 + 0.25
    lit = light(x, one._replace(brightness=one.brightness + 0.05, contrast=one.contrast * 0.9))
    torch.testing.assert_close(lit, (x - x.mean()) * 0.9 + x.mean() + 0.05)
