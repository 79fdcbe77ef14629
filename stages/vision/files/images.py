"""Opening pictures: upright, RGB, whole, and never larger than a limit that is checked before memory is taken."""

import hashlib
import io
import logging
import warnings
from typing import NamedTuple, cast

from PIL import Image, ImageChops, ImageOps, UnidentifiedImageError

warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")  # of odd metadata; they name no file, and what is bad is rejected
logging.getLogger("PIL").addHandler(logging.NullHandler())

# What people keep pictures in. Pillow opens more, EPS among it, for which it starts Ghostscript. Those that it knows
# without loading all of its plugins stand first; JPEG stands for MPO too.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF")
MAX_RATIO = 100  # its resized form must not be longer than JPEG's 65,500 pixels


class BadPictureError(Exception):
    """Why a file cannot be used as a picture, in a few words."""


class Facts(NamedTuple):
    """What a picture file is: upright size in pixels, and what its bytes say."""

    sha256: str
    width: int
    height: int
    format: str
    mode: str
    orientation: int


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise BadPictureError("empty file")
    Image.MAX_IMAGE_PIXELS = None  # our own limit, below, is checked on the header
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadPictureError(f"not a picture in {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:  # struct.error, KeyError and others of broken headers
        raise BadPictureError(f"unreadable header: {error}") from None
    if image.width * image.height > max_pixels:
        raise BadPictureError(f"{image.width} x {image.height} pixels, more than ingest.max_megapixels allows")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise BadPictureError(f"{image.width} x {image.height} pixels: thinner than 1:{MAX_RATIO}")
    return image


def _upright(image: Image.Image) -> Image.Image:
    """RGB, or grey where it is: 16-bit greys are scaled down (Pillow would clip them), alpha is laid on white.

    Spoils `image`. At 10 bytes a pixel at most: what is no longer needed goes before the next is made.
    """
    upside_down = image.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info
    ImageOps.exif_transpose(image, in_place=True)
    if upside_down:  # Pillow takes all for Adobe's, which stores ink so
        image = ImageChops.invert(image)
    if image.mode == "F":
        raise BadPictureError("pixels with a fraction: nobody says what is white; save it with 8 or 16 bits")
    if image.mode.startswith("I;16") or image.mode == "I":
        low, high = cast("tuple[int, int]", image.getextrema())
        if low < 0 or high > 65535:
            raise BadPictureError(f"pixels from {low} to {high}: more than 16 bits; save it with 8 or 16")
        return image.convert("I").point(lambda value: value / 256).convert("L")
    if image.has_transparency_data:
        if image.mode not in ("LA", "RGBA"):
            given, image = image, image.convert("RGBA")
            given.close()
        clear = ImageChops.invert(image.getchannel("A"))
        image = image.getchannel("L") if image.mode == "LA" else image.convert("RGB")
        image.paste("white", mask=clear)
        return image
    return image if image.mode == "L" else image.convert("RGB")


def decode(data: bytes, max_pixels: int, draft_px: int | None = None) -> Image.Image:
    """A picture file's bytes, upright: RGB, or L where it is grey, which is a third of the work for who resizes it.

    `draft_px` lets the JPEG decoder skip detail beyond a shorter side of that many pixels.

    Raises:
        BadPictureError: empty, no picture, cut off, or more than `max_pixels` pixels.
        MemoryError: which is not the picture's fault, and must not be remembered of it.
    """
    image = _open(data, max_pixels)
    try:
        if draft_px is not None:
            image.draft("RGB", (draft_px, draft_px))
        return _upright(image)
    except (BadPictureError, MemoryError):
        raise
    except Exception as error:  # Pillow lets struct.error, KeyError and others of broken files through
        raise BadPictureError(f"cannot be decoded: {error}") from None


def facts(data: bytes, max_pixels: int) -> tuple[Facts, Image.Image]:
    """Decode once, whole: what it is, and the picture as `decode` gives it. Raises BadPictureError."""
    image = _open(data, max_pixels)
    file_format, mode = image.format or "", image.mode
    upright = decode(data, max_pixels)
    sha256 = hashlib.sha256(data).hexdigest()
    return Facts(sha256, upright.width, upright.height, file_format, mode, _orientation(image)), upright


def _orientation(image: Image.Image) -> int:
    """EXIF's 1 to 8; 1 where it says something else."""
    said = image.getexif().get(0x0112, 1)
    return said if isinstance(said, int) and 1 <= said <= 8 else 1


def resize_shorter(image: Image.Image, size_px: int) -> Image.Image:
    """Bilinear, aspect kept, shorter side exactly `size_px` (fast.ai 0.7 `resize_img`, which enlarges too)."""
    ratio = size_px / min(image.size)
    width, height = (max(size_px, round(side * ratio)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
