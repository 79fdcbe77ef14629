"""Opens pictures: upright, RGB or grey, fully decoded. A size limit is checked before memory is allocated."""

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
# Warnings about odd metadata do not name the file, and bad files are rejected.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

# The accepted formats. Pillow opens more, such as EPS, for which it starts Ghostscript. Formats that it knows without
# loading all of its plugins come first; JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "PPM", "TIFF", "WEBP", "AVIF")
MAX_RATIO = 100  # a resized picture must not be longer than JPEG's limit of 65,500 pixels
TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip
ORIENTATION = 0x0112


class BadPictureError(Exception):
    """A file cannot be used as a picture; the message says why in a few words."""


class UnreadableError(BadPictureError):
    """Pillow cannot read the file. It may be able to read the file without its metadata."""


class Facts(NamedTuple):
    """Properties of a picture file. `width` and `height` are those of the upright picture in pixels."""

    sha256: str
    width: int
    height: int
    format: str
    mode: str
    orientation: int


class Examined(NamedTuple):
    """A fully decoded picture.

    `image` is L or RGB. A picture of more than 8 bits is scaled to its own range, `values`; for 8 bits, `values` is
    None. `unreadable`: the names of metadata that could not be read.
    """

    facts: Facts
    image: Image.Image
    values: Range | None
    unreadable: list[str]


class _Loaded(NamedTuple):
    """A decoded file. `format` and `mode` are as stored. `orientation` is that of EXIF, or None if it is unreadable.

    `remaining_orientation` is still to be applied; in TIFF files Pillow applies the orientation itself. `low` are the
    lower bytes of a colour picture of 16 bits, `max_value` is the largest possible value (see bit_depth).
    """

    image: Image.Image
    low: Image.Image | None
    max_value: int
    format: str
    mode: str
    orientation: int | None
    remaining_orientation: int | None


def _open(data: bytes, max_pixels: int) -> ImageFile:
    if not data:
        raise BadPictureError("empty file")
    Image.MAX_IMAGE_PIXELS = None  # the limit below, which is checked on the header, replaces Pillow's
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
    """Returns the orientation in EXIF, 1 to 8; 1 for other values, None if EXIF cannot be read."""
    try:
        orientation = image.getexif().get(ORIENTATION, 1)
    except MemoryError:
        raise
    except Exception:  # Pillow raises SyntaxError, struct.error and others
        return None
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _load(data: bytes, max_pixels: int, draft_px: int | None, with_low_bytes: bool) -> _Loaded:
    image, low = _open(data, max_pixels), None
    max_value = bit_depth.max_value_of(image)
    if with_low_bytes and (tiles := bit_depth.tiles_of(image)):
        low, image.tile = bit_depth.low_bytes(_open(data, max_pixels), tiles), tiles.upper
    if draft_px is not None:
        image.draft("RGB", (draft_px, draft_px))
    file_format, mode, orientation = image.format or "", image.mode, _orientation(image)
    image.load()
    return _Loaded(image, low, max_value, file_format, mode, orientation, _orientation(image))


def _to_eight_bits(loaded: _Loaded, window: Window | None, use_own_range: bool) -> tuple[Image.Image, Range | None]:
    """Returns the picture in 8 bits per value.

    With `use_own_range`, a picture of more bits is scaled to its own range, which is returned too.
    """
    image, values = loaded.image, None
    if image.mode == "F":
        raise BadPictureError("floating-point pixels: which value is white is unknown; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        original, image = image, image.convert("I")  # Pillow gives no extrema of big-endian pixels
        original.close()
        low, high = cast("tuple[int, int]", image.getextrema())
        if low < 0 or high > 65535:
            raise BadPictureError(f"pixels from {low} to {high}: more than 16 bits; save it with 8 or 16")
        if loaded.format == "PPM":  # Pillow stretches PPM to 16 bits
            scale = loaded.max_value / 65535
            image = image.point(lambda value: value * scale + 0.5)
        return bit_depth.grey_to_8_bits(image, None if use_own_range else window or (0, loaded.max_value))
    if loaded.low:
        values = bit_depth.colour_to_8_bits(image, loaded.low, None if use_own_range else window)
        loaded.low.close()
    return image, values


def _invert(image: Image.Image) -> Image.Image:
    """Inverts a grey picture, with or without alpha."""
    if image.mode == "LA":
        return Image.merge("LA", (ImageChops.invert(image.getchannel("L")), image.getchannel("A")))
    return ImageChops.invert(image.convert("L"))


def _make_upright(
    loaded: _Loaded, white_is_zero: bool, window: Window | None, use_own_range: bool
) -> tuple[Image.Image, Range | None]:
    """Returns the upright picture, RGB or grey, with transparency replaced by white.

    `loaded` cannot be used afterwards. The function needs at most 10 bytes per pixel, because it frees each image
    before it makes the next one.
    """
    image, values = _to_eight_bits(loaded, window, use_own_range)
    if white_is_zero:
        image = _invert(image)
    if loaded.remaining_orientation in TRANSPOSITIONS:
        original, image = image, image.transpose(TRANSPOSITIONS[loaded.remaining_orientation])
        original.close()
    if loaded.format == "JPEG" and image.mode == "CMYK" and "adobe" not in image.info:
        image = ImageChops.invert(image)  # Pillow treats all CMYK as Adobe's, which is inverted
    if image.has_transparency_data:
        if image.mode not in ("LA", "RGBA"):
            original, image = image, image.convert("RGBA")
            original.close()
        transparency = ImageChops.invert(image.getchannel("A"))
        image = image.getchannel("L") if image.mode == "LA" else image.convert("RGB")
        image.paste("white", mask=transparency)
        return image, values
    return image if image.mode == "L" else image.convert("RGB"), values


def _read(
    data: bytes, max_pixels: int, draft_px: int | None, window: Window | None, use_own_range: bool
) -> tuple[_Loaded, Image.Image, Range | None]:
    """Returns the decoded file and the result of `_make_upright`. Raises BadPictureError, MemoryError."""
    inverted_tiff = bit_depth.black_is_zero(data)
    try:
        loaded = _load(inverted_tiff or data, max_pixels, draft_px, use_own_range or window is not None)
        return loaded, *_make_upright(loaded, inverted_tiff is not None, window, use_own_range)
    except (BadPictureError, MemoryError):
        raise
    except Exception as error:  # Pillow raises struct.error, KeyError and others for broken files
        raise UnreadableError(f"cannot be decoded: {error}") from None


def _read_with_less_metadata(
    data: bytes, max_pixels: int, draft_px: int | None, window: Window | None, use_own_range: bool
) -> tuple[_Loaded, Image.Image, Range | None, bool]:
    """Returns the result of `_read`, and whether it needed a version of the file with less metadata."""
    try:
        return *_read(metadata.without_corrupt_parts(data), max_pixels, draft_px, window, use_own_range), False
    except UnreadableError as error:
        for version in metadata.versions(data):
            with suppress(UnreadableError):
                return *_read(version, max_pixels, draft_px, window, use_own_range), True
        raise error


def decode(data: bytes, max_pixels: int, draft_px: int | None = None, window: Window | None = None) -> Image.Image:
    """Returns the upright picture of a file's bytes: RGB, or L if it is grey, which makes resizing three times as fast.

    With `draft_px`, the JPEG decoder may reduce the picture, but not below a shorter side of `draft_px` pixels.
    `window`: the values that become black and white in pictures of more than 8 bits; None means 0 and the largest
    possible value of the file. Unreadable metadata is ignored.

    Raises:
        BadPictureError: if the file is empty, not a picture, truncated, or has more than `max_pixels` pixels.
        MemoryError: the picture is not the cause, so callers must not store the error as the picture's result.
    """
    return _read_with_less_metadata(data, max_pixels, draft_px, window, use_own_range=False)[1]


def examine(data: bytes, max_pixels: int) -> Examined:
    """Decodes the whole picture once. Raises BadPictureError, MemoryError."""
    loaded, image, values, needed_less = _read_with_less_metadata(data, max_pixels, None, None, use_own_range=True)
    unreadable = metadata.unreadable(data)
    if not unreadable and (needed_less or loaded.orientation is None):
        unreadable = ["EXIF" if loaded.orientation is None else "other"]
    sha256 = hashlib.sha256(data).hexdigest()
    facts = Facts(sha256, image.width, image.height, loaded.format, loaded.mode, loaded.orientation or 1)
    return Examined(facts, image, values, unreadable)


def resize_shorter(image: Image.Image, size_px: int) -> Image.Image:
    """Resizes a picture so that its shorter side is exactly `size_px`; the aspect ratio is kept.

    The interpolation is bilinear. Small pictures are enlarged, as by fast.ai 0.7's `resize_img`.
    """
    ratio = size_px / min(image.size)
    width, height = (max(size_px, round(side * ratio)) for side in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
