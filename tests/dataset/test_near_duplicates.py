"""Near duplicates: copies are found, different pictures are not, and the search is fast."""

import io
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageEnhance

from stages.dataset.splitting.groups import Groups
from stages.dataset.splitting.near_duplicates import (
    BANDS,
    MAX_DIFFERING_BITS,
    MAX_NEIGHBOURS,
    distances,
    near_duplicates,
    perceptual_hashes,
)
from stages.vision.files.thumbnail import thumbnail


def photo(seed: int, size: tuple[int, int] = (320, 240)) -> Image.Image:
    """Large soft shapes and a little noise, as photographs have."""
    rng = np.random.default_rng(seed)
    soft = Image.fromarray(rng.integers(256, size=(6, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
    noise = rng.normal(0, 6, (size[1], size[0], 3))
    return Image.fromarray((np.asarray(soft) + noise).clip(0, 255).astype(np.uint8))


def copied(image: Image.Image, scale: float, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    size = (round(image.width * scale), round(image.height * scale))
    image.resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def thumbs(images: list[Image.Image]) -> npt.NDArray[np.int8]:
    return np.stack([np.frombuffer(thumbnail(image), np.int8) for image in images])


def noise(n: int, seed: int = 0) -> npt.NDArray[np.int8]:
    return np.random.default_rng(seed).integers(-100, 100, (n, 256), dtype=np.int8)


@pytest.mark.parametrize(("scale", "quality"), [(0.5, 90), (0.6, 50), (0.7, 70), (0.9, 60), (1.3, 80), (1.0, 50)])
def test_copies_are_found_and_nothing_else(scale: float, quality: int) -> None:
    originals = [photo(seed) for seed in range(20)]
    copies = [copied(image, scale, quality) for image in originals]
    pairs, pair_distances = near_duplicates(thumbs(originals + copies), 0.001)
    assert pairs.tolist() == [[row, row + 20] for row in range(20)]
    assert pair_distances.max() < 0.001


def test_what_is_a_double_and_what_is_not() -> None:
    image = photo(0)
    brighter = ImageEnhance.Brightness(image).enhance(1.1)
    same = [image, copied(image, 0.5, 50), image.convert("L"), ImageEnhance.Contrast(image).enhance(0.7), brighter]
    other = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), image.crop((30, 30, 320, 240)), photo(1)]
    pairs, _ = near_duplicates(thumbs(same + other), 0.01)
    assert pairs.tolist() == [[row, column] for row in range(5) for column in range(row + 1, 5)]


def test_a_small_mark_tells_two_pictures_apart() -> None:
    """A crack, for example, tells two solar cells apart."""
    cell = Image.new("L", (300, 300), 150)
    cell.paste(60, (0, 140, 300, 160))
    broken = cell.copy()
    broken.paste(90, (200, 20, 216, 120))
    assert near_duplicates(thumbs([cell, broken]), 0.001)[0].tolist() == []
    assert near_duplicates(thumbs([cell, copied(cell, 0.5, 70)]), 0.001)[0].tolist() == [[0, 1]]


def test_flat_pictures_have_no_thumbnail() -> None:
    assert thumbnail(Image.new("RGB", (50, 40), (200, 10, 10))) == b""
    flat = np.full((50, 40), 128, np.uint8)
    flat[::2] += 1
    assert thumbnail(Image.fromarray(flat)) == b""
    assert len(thumbnail(photo(0))) == len(thumbnail(Image.linear_gradient("L").resize((1, 300)))) == 256


def test_a_thumbnail_is_pinned() -> None:
    """Stored thumbnails, and those of other machines, must stay comparable."""
    image = Image.linear_gradient("L").rotate(90)
    row = [-52, -45, -38, -31, -24, -17, -10, -3, 3, 10, 17, 24, 31, 38, 45, 52]
    assert np.frombuffer(thumbnail(image), np.int8).reshape(16, 16).tolist() == [row] * 16
    values = np.arange(256).reshape(16, 16) * 7 % 31
    assert np.packbits(perceptual_hashes(values.astype(np.int8).reshape(1, 256))).tobytes().hex() == "ab499a43bb0157e9"


def test_pairs_are_those_of_all_against_all() -> None:
    """The pairs differ in fewer or more bits than the limit, in any of the bands."""
    originals = noise(300)
    rng = np.random.default_rng(1)
    strengths = rng.uniform(0, 60, (300, 1))
    table = np.concatenate(
        [originals, (originals + rng.normal(0, 1, originals.shape) * strengths).clip(-127, 127).astype(np.int8)]
    )
    left, right = np.triu_indices(len(table), 1)
    bits = perceptual_hashes(table)
    pair_distances = distances(table, left, right)
    is_duplicate = ((bits[left] != bits[right]).sum(1) <= MAX_DIFFERING_BITS) & (pair_distances <= 0.05)
    assert 50 < is_duplicate.sum() < 290
    pairs, found_distances = near_duplicates(table, 0.05)
    assert pairs.tolist() == np.stack([left[is_duplicate], right[is_duplicate]], axis=1).tolist()
    np.testing.assert_array_equal(found_distances, pair_distances[is_duplicate])


def test_distances_are_exact_where_thumbnails_are_equal() -> None:
    table = np.repeat(noise(50), 2, axis=0)
    pairs, pair_distances = near_duplicates(table, 0.0)
    assert pairs.tolist() == [[2 * row, 2 * row + 1] for row in range(50)]
    assert (pair_distances == 0).all()


def test_a_flood_of_doubles_is_one_group_and_not_a_square() -> None:
    n = 3000
    pairs, _ = near_duplicates(np.repeat(noise(1), n, axis=0), 0.001)
    assert len(pairs) <= n * MAX_NEIGHBOURS * BANDS
    groups = Groups(n)
    for row, other in pairs:
        groups.join(row, other)
    assert set(groups.lowest_rows()) == {0}


def test_none_and_one() -> None:
    for n in (0, 1):
        pairs, pair_distances = near_duplicates(noise(n), 0.001)
        assert (pairs.shape, pair_distances.shape) == ((0, 2), (0,))


@pytest.mark.slow
def test_a_hundred_thousand() -> None:
    program = r"""
import re, time, numpy as np
from stages.dataset.splitting.near_duplicates import near_duplicates
rng = np.random.default_rng(0)
thumbs = rng.integers(-100, 100, (100_000, 256), dtype=np.int8)
thumbs[50_000:51_000] = thumbs[:1000]
start = time.monotonic()
pairs, _ = near_duplicates(thumbs, 0.001)
seconds = time.monotonic() - start
peak = re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]  # ru_maxrss starts at the parent's
print(len(pairs), seconds, int(peak) / 1024)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    is_duplicate, seconds, mib = map(float, done.stdout.split())
    assert is_duplicate == 1000
    assert seconds < 20
    assert mib < 500


def test_groups_are_called_by_their_lowest_row() -> None:
    groups = Groups(7)
    assert [groups.join(*pair) for pair in ((5, 6), (3, 5), (6, 3), (1, 6), (0, 2))] == [True, True, False, True, True]
    assert groups.lowest_rows().tolist() == [0, 1, 0, 1, 4, 1, 1]
    groups.join_equal(["a", "b", "c", "d", "a", "e", "f"])
    assert groups.lowest_rows().tolist() == [0, 1, 0, 1, 0, 1, 1]
