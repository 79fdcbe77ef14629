"""Opens pictures: upright, RGB, fully decoded, and within a size limit that is checked before memory is allocated."""

import hashlib
import io
import logging
import warnings
from contextlib import suppress
from typing import NamedTuple, cast

from PIL import Image, ImageChops, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from stages.vision.files import bit_depth, metadata
from stages.vision.files.bit_depth import Range, Window

warnings.simplefilter("error", Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")  # on odd metadata: they name no file, and bad files are rejected
logging.getLogger("PIL").addHandler(logging.NullHandler())

# The accepted formats. Pillow opens more, such as EPS, for which it starts Ghostscript. Formats that it knows without
# loading all of its plugins come first; JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF")
MAX_RATIO = 100  # a resized picture must not be longer than JPEG's limit of 65,500 pixels
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
ORIENTATION = 0x0112


class BadPictureError(Exception):
    """Why a file cannot be used as a picture, in a few words."""


class UnreadableError(BadPictureError):
    """Pillow cannot read the file: perhaps it can without the metadata."""


class Facts(NamedTuple):
    """Facts on a picture file: upright size in pixels, and properties of the file."""

    sha256: str
    width: int
    height: int
    format: str
    mode: str
    orientation: int


class Examined(NamedTuple):
    """A fully decoded picture. `image`: L or RGB; one of more than 8 bits is scaled to its own range. `values`: that
    range, None for 8 bits; `unreadable`: names of the metadata that could not be read."""

    facts: Facts
    image: Image.Image
    values: Range | None
    unreadable: list[str]


class _Loaded(NamedTuple):
    """A decoded file. `format` and `mode` are as stored; `orientation` is that of EXIF, None if unreadable; `turn` is
    what remains to be applied: Pillow turns TIFF itself. `low`, `white`: see bit_depth."""

    image: Image.Image
    low: Image.Image | None
    white: int
    format: str
    mode: str
    orientation: int | None
    turn: int | None


def _open(data: bytes, max_pixels: int) -> ImageFile:
    if not data:
        raise BadPictureError("empty file")
    Image.MAX_IMAGE_PIXELS = None  # replaced by our own limit below, which is checked on the header
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise UnreadableError(f"not a picture in {', '.join(FORMATS)}") from None
    except MemoryError:
        raise
    except Exception as error:  # broken headers raise struct.error, KeyError and others
        raise UnreadableError(f"unreadable header: {error}") from None
    if image.width * image.height > max_pixels:
        raise BadPictureError(f"{image.width} x {image.height} pixels, more than ingest.max_megapixels allows")
    if max(image.size) > MAX_RATIO * min(image.size):
        raise BadPictureError(f"{image.width} x {image.height} pixels: thinner than 1:{MAX_RATIO}")
    return image


def _orientation(image: Image.Image) -> int | None:
    """EXIF's orientation, 1 to 8; 1 for other values, None if EXIF cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # Pillow raises SyntaxError, struct.error and others
        return None
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _load(data: bytes, max_pixels: int, draft_px: int | None, with_low_bytes: bool) -> _Loaded:
    image, low = _open(data, max_pixels), None
    white = bit_depth.white_of(image)
    if with_low_bytes and (tiles := bit_depth.tiles_of(image)):
        low, image.tile = bit_depth.low_bytes(_open(data, max_pixels), tiles), tiles.upper
    if draft_px is not None:
        image.draft("RGB", (draft_px, draft_px))
    file_format, mode, orientation = image.format or "", image.mode, _orientation(image)
    image.load()
    return _Loaded(image, low, white, file_format, mode, orientation, _orientation(image))


def _eight_bits(loaded: _Loaded, window: Window | None, measure: bool) -> tuple[Image.Image, Range | None]:
    """The picture in 8 bits per value; with `measure`, one of more is scaled to its own range, which is returned."""
    image, values = loaded.image, None
    if image.mode == "F":
        raise BadPictureError("floating-point pixels: which value is white is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        given, image = image, image.convert("I")  # Pillow gives no extrema of big-endian pixels
        given.close()
        low, high = cast("tuple[int, int]", image.getextrema())
        if low < 0 or high > 65535:
            raise BadPictureError(f"pixels from {low} to {high}: more than 16 bits; save it with 8 or 16")
        if loaded.format == "PPM":  # Pillow stretches PPM to 16 bits
            share = loaded.white / 65535
            image = image.point(lambda value: value * share + 0.5)
        return bit_depth.grey(image, None if measure else window or (0, loaded.white))
    if loaded.low:
        values = bit_depth.colour(image, loaded.low, None if measure else window)
        loaded.low.close()
    return image, values


def _inverted(image: Image.Image) -> Image.Image:
    """Inverts a grey picture, with or without alpha."""
    if image.mode == "LA":
        return Image.merge("LA", (ImageChops.invert(image.getchannel("L")), image.getchannel("A")))
    return ImageChops.invert(image.convert("L"))


def _upright(
    loaded: _Loaded, white_is_zero: bool, window: Window | None, measure: bool
) -> tuple[Image.Image, Range | None]:
    """The upright picture, RGB or grey, with transparency replaced by white.

    `loaded` cannot be used afterwards. Takes at most 10 bytes per pixel: frees each image before it makes another.
    """
    image, values = _eight_bits(loaded, window, measure)
    if white_is_zero:
        image = _inverted(image)
    if loaded.turn in TURNS:
        given, image = image, image.transpose(TURNS[loaded.turn])
        given.close()
    if loaded.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow treats all CMYK as Adobe's, which is inverted
    if image.has_transparency_data:
        if image.mode not in ("LA", "RGBA"):
            given, image = image, image.convert("RGBA")
            given.close()
        clear = ImageChops.invert(image.getchannel("A"))
        image = image.getchannel("L") if image.mode == "LA" else image.convert("RGB")
        image.paste("white", mask=clear)
        return image, values
    return image if image.mode == "L" else image.convert("RGB"), values


def _read(
    data: bytes, max_pixels: int, draft_px: int | None, window: Window | None, measure: bool
) -> tuple[_Loaded, Image.Image, Range | None]:
    """The decoded file, and its `_upright` picture. Raises BadPictureError, MemoryError."""
    inverted_tiff = bit_depth.black_is_zero(data)
    try:
        loaded = _load(inverted_tiff or data, max_pixels, draft_px, measure or window is not None)
        return loaded, *_upright(loaded, inverted_tiff is not None, window, measure)
    except (BadPictureError, MemoryError):
        raise
    except Exception as error:  # Pillow raises struct.error, KeyError and others for broken files
        raise UnreadableError(f"cannot be decoded: {error}") from None


def _read_with_less(
    data: bytes, max_pixels: int, draft_px: int | None, window: Window | None, measure: bool
) -> tuple[_Loaded, Image.Image, Range | None, bool]:
    """As `_read`, and whether it needed a version of the file with less metadata."""
    try:
        return *_read(metadata.intact(data), max_pixels, draft_px, window, measure), False
    except UnreadableError as error:
        for version in metadata.versions(data):
            with suppress(UnreadableError):
                return *_read(version, max_pixels, draft_px, window, measure), True
        raise error


def decode(data: bytes, max_pixels: int, draft_px: int | None = None, window: Window | None = None) -> Image.Image:
    """The upright picture of a file's bytes: RGB, or L if it is grey, which makes resizing three times as fast.

    `draft_px` lets the JPEG decoder skip detail beyond a shorter side of that many pixels. `window`: the values that
    become black and white in pictures of more than 8 bits; None: 0 and the largest possible in the file.
    Unreadable metadata is ignored.

    Raises:
        BadPictureError: if the file is empty, no picture, truncated, or has more than `max_pixels` pixels.
        MemoryError: not caused by the picture, so callers must not store it as the picture's result.
    """
    return _read_with_less(data, max_pixels, draft_px, window, measure=False)[1]


def examine(data: bytes, max_pixels: int) -> Examined:
    """Decodes the whole picture once. Raises BadPictureError, MemoryError."""
    loaded, image, values, with_less = _read_with_less(data, max_pixels, None, None, measure=True)
    unreadable = metadata.unreadable(data)
    if not unreadable and (with_less or loaded.orientation is None):
        unreadable = ["EXIF" if loaded.orientation is None else "other"]
    sha256 = hashlib.sha256(data).hexdigest()
    about = Facts(sha256, image.width, image.height, loaded.format, loaded.mode, loaded.orientation or 1)
    return Examined(about, image, values, unreadable)


def resize_shorter(image: Image.Image, size_px: int) -> Image.Image:
    """Bilinear, aspect kept, shorter side exactly `size_px` (fast.ai 0.7 `resize_img`, which enlarges too)."""
    ratio = size_px / min(image.size)
    width, height = (max(size_px, round(side * ratio)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
