"""Pictures are decoded upright, as RGB or grey, and completely; otherwise they are rejected."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.runtime.receipt import peak_mib
from stages.vision.files.images import BadPictureError, decode, examine, resize_shorter

LIMIT = 1_000_000


def encoded(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def half_red(width: int = 40, height: int = 20) -> Image.Image:
    """Returns a picture whose left half is red."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    return Image.fromarray(pixels)


def test_all_eight_orientations_come_out_upright() -> None:
    upright = half_red()
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }
    for orientation, image in stored.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        data = encoded(image, "PNG", exif=exif)
        np.testing.assert_array_equal(np.asarray(decode(data, LIMIT).convert("RGB")), np.asarray(upright))
        assert examine(data, LIMIT)[0][1:] == (40, 20, "PNG", "RGB", orientation)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16"])
def test_other_modes_come_out_as_rgb_or_grey(mode: str) -> None:
    grey = Image.fromarray(np.full((30, 30), 200, np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((30, 30), 200 * 257, np.uint16))
    else:
        image = grey.convert("RGB").convert(mode)
    rgb = decode(encoded(image, "TIFF"), LIMIT)
    assert rgb.mode in ("RGB", "L")
    if mode != "1":
        assert abs(int(np.asarray(rgb).mean()) - 200) <= 1


def test_transparent_is_white() -> None:
    clear = Image.new("RGBA", (10, 10), (255, 0, 0, 0))
    assert decode(encoded(clear, "PNG"), LIMIT).getpixel((5, 5)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_half_transparent_is_half_white(mode: str) -> None:
    half = Image.new(mode, (10, 10), (0, 0, 0, 51) if mode == "RGBA" else (0, 51))
    assert decode(encoded(half, "PNG"), LIMIT).convert("RGB").getpixel((5, 5)) == (204, 204, 204)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16"])
def test_ten_bytes_a_pixel_at_most(mode: str) -> None:
    """A file of a few hundred kilobytes can have ingest.max_megapixels, and several files are opened at once."""
    pixels, clear = 16_000_000, {"P": 0, "L": 0, "RGB": (0, 0, 0)}
    data = encoded(Image.new(mode, (4000, 4000)), "PNG", transparency=clear.get(mode))
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets VmHWM
    before = peak_mib()
    decode(data, pixels)
    assert (peak_mib() - before) * 2**20 < 11 * pixels


def test_odd_metadata_say_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    exif = encoded(half_red(), "PNG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\0\0\0")
    program = f"from stages.vision.files.images import examine; print(examine({exif!r}, {LIMIT})[0].orientation)"
    subprocess.run([sys.executable, "-c", program], check=True)
    assert capfd.readouterr() == ("1\n", "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"<html></html>", "not a picture in JPEG, PNG"),
        (encoded(half_red(), "EPS"), "not a picture in JPEG, PNG"),
        (encoded(half_red(), "PCX"), "not a picture in JPEG, PNG"),
        (encoded(half_red(), "JPEG")[:-20], "cannot be decoded"),
        (encoded(half_red(2000, 1000), "PNG"), "2000 x 1000 pixels"),
    ],
)
def test_bad_files_say_why(data: bytes, reason: str) -> None:
    with pytest.raises(BadPictureError, match=reason):
        examine(data, LIMIT)


@pytest.mark.parametrize(
    ("size", "expected"), [((500, 375), (453, 340)), ((300, 300), (340, 340)), ((1, 50), (340, 17000))]
)
def test_shorter_side_is_exact(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resize_shorter(Image.new("RGB", size), 340).size == expected


def test_a_grey_one_resized_as_grey_has_the_pixels_of_one_resized_as_rgb() -> None:
    pixels = np.random.default_rng(0).integers(256, size=(70, 90), dtype=np.uint8)
    grey = decode(encoded(Image.fromarray(pixels), "PNG"), LIMIT)
    assert grey.mode == "L"
    as_grey, as_rgb = resize_shorter(grey, 40).convert("RGB"), resize_shorter(grey.convert("RGB"), 40)
    np.testing.assert_array_equal(np.asarray(as_grey), np.asarray(as_rgb))
