"""What people's folders hold: each kind of file comes out upright with the right pixels, or with its reason."""

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFile, features

from stages.ingest import IngestParams, ingest
from stages.runtime.errors import StageError
from stages.store.items import Items, ItemsParams
from stages.vision.files.images import decode

Colours = list[tuple[int, int, int]]

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)
QUARTERS: Colours = [RED, GREEN, BLUE, WHITE]  # by rows
GREYS: Colours = [(grey, grey, grey) for grey in (76, 150, 29, 255)]  # their luminances
WIDTH, HEIGHT = 64, 48
LIMIT = 1_000_000
BOMBS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")


def quarters(colours: Colours = QUARTERS) -> Image.Image:
    """64 x 48, each quarter in its colour: no turn or mirroring leaves it as it is."""
    image = Image.new("RGB", (WIDTH, HEIGHT))
    for number, colour in enumerate(colours):
        image.paste(colour, (WIDTH // 2 * (number % 2), HEIGHT // 2 * (number // 2), WIDTH, HEIGHT))
        if number % 2 == 0:
            image.paste(colour, (0, HEIGHT // 2 * (number // 2), WIDTH // 2, HEIGHT))
    return image


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def animated(file_format: str, **options: object) -> bytes:
    """The quarters first, then black."""
    frames = [Image.new("RGB", (WIDTH, HEIGHT))]
    return saved(quarters(), file_format, save_all=True, append_images=frames, duration=100, **options)


def turned(file_format: str, orientation: int) -> bytes:
    """Stored as a camera held otherwise stores it."""
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    stored = quarters().transpose(turns[orientation]) if orientation in turns else quarters()
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(stored, file_format, exif=exif)


def cmyk_jpeg(adobe: bool) -> bytes:
    """Pillow saves as Adobe does, ink upside down and marked so; without the mark 255 is full ink."""
    image = quarters().convert("CMYK")
    if adobe:
        return saved(image, "JPEG", quality=95)
    data = saved(Image.eval(image, lambda ink: 255 - ink), "JPEG", quality=95)
    start = data.index(b"\xff\xee")  # APP14
    return data[:start] + data[start + 2 + struct.unpack(">H", data[start + 2 : start + 4])[0] :]


def sixteen_bit_rgb_png() -> bytes:
    """Which Pillow reads but does not write."""
    pixels = (np.asarray(quarters()).astype(">u2") * 257).reshape(HEIGHT, -1)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    return png(struct.pack(">IIBBBBB", WIDTH, HEIGHT, 16, 2, 0, 0, 0), zlib.compress(lines))


def png(header: bytes, content: bytes) -> bytes:
    parts = ((b"IHDR", header), (b"IDAT", content), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def bomb(file_format: str) -> bytes:
    """A few bytes that announce thousands of millions of pixels."""
    if file_format == "PNG":
        return png(struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0), zlib.compress(b"\0" * 1000))
    if file_format == "PPM":
        return b"P6 60000 60000 255\n" + b"\0" * 1000
    if file_format == "WEBP":  # the canvas of an animation, which Pillow makes when it opens the file
        data = bytearray(animated("WEBP", lossless=True))
        at = data.index(b"VP8X") + 12
        data[at : at + 6] = (16_382).to_bytes(3, "little") * 2
        return bytes(data)
    data = bytearray(saved(Image.new("L", (WIDTH, HEIGHT)), file_format))
    if file_format == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", 60_000, 60_000)
    elif file_format == "GIF":
        at = data.index(b"\x2c") + 5
        data[6:10] = data[at : at + 4] = struct.pack("<HH", 60_000, 60_000)
    elif file_format == "BMP":
        data[18:26] = struct.pack("<ii", 60_000, 60_000)
    elif file_format == "TIFF":
        for tag in (b"\x00\x01", b"\x01\x01"):  # width and height
            at = data.index(tag + b"\x04\x00\x01\x00\x00\x00") + 8
            data[at : at + 4] = struct.pack("<I", 60_000)
    return bytes(data)


def rgba() -> Image.Image:
    """The quarters, but what would be white is green that cannot be seen."""
    image = quarters([RED, GREEN, BLUE, GREEN]).convert("RGBA")
    image.putalpha(Image.eval(quarters([WHITE, WHITE, WHITE, BLACK]).convert("L"), lambda grey: grey))
    return image


def palette_with_a_transparent_colour() -> bytes:
    image = quarters([RED, GREEN, BLUE, (9, 9, 9)]).quantize(8)
    return saved(image, "PNG", transparency=image.getpixel((WIDTH - 1, HEIGHT - 1)))


def lab() -> Image.Image:
    """The quarters in CIE Lab, D50: lightness as 0 to 255, a and b around 128."""
    shades = [(138, 209, 198), (224, 49, 209), (75, 196, 16), (255, 128, 128)]
    return Image.merge("LAB", [band.copy() for band in quarters(shades).split()])


GREY = quarters().convert("L")
SIXTEEN = Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257)
THIRTY_TWO = Image.fromarray(np.asarray(GREY).astype(np.int32) * 65_537)
FRACTIONS = Image.fromarray(np.asarray(GREY).astype(np.float32) / 255)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(256, size=(HEIGHT, WIDTH, 3), dtype=np.uint8))
JPEG = saved(quarters(), "JPEG", quality=95)

# name, bytes, then the colours of the four quarters, or the reason why it is rejected (a regular expression)
CASES: list[tuple[str, bytes, Colours | str]] = [
    ("a JPEG", JPEG, QUARTERS),
    ("a progressive JPEG", saved(quarters(), "JPEG", quality=95, progressive=True), QUARTERS),
    ("MPO, as stereo cameras write it", animated("MPO", quality=95), QUARTERS),
    ("a PNG named .jpg", saved(quarters(), "PNG"), QUARTERS),
    ("a GIF named .jpg", saved(quarters(), "GIF"), QUARTERS),
    ("a WebP named .jpg", saved(quarters(), "WEBP", lossless=True), QUARTERS),
    ("a BMP named .jpg", saved(quarters(), "BMP"), QUARTERS),
    ("a TIFF named .jpg", saved(quarters(), "TIFF"), QUARTERS),
    ("a PPM named .jpg", saved(quarters(), "PPM"), QUARTERS),
    ("an animated GIF: the first frame", animated("GIF"), QUARTERS),
    ("an animated WebP: the first frame", animated("WEBP", lossless=True), QUARTERS),
    ("an animated PNG: the first frame", animated("PNG"), QUARTERS),
    ("a TIFF of several pages: the first one", animated("TIFF"), QUARTERS),
    ("an empty file", b"", "empty file"),
    ("HTML, as a failed download leaves it", b"<!DOCTYPE html><html>404</html>", "not a picture"),
    ("text", b"red,green\n", "not a picture"),
    ("a pointer that git-lfs left", b"version https://git-lfs.github.com/spec/v1\n", "not a picture"),
    ("a truncated JPEG", saved(PHOTO, "JPEG")[:-300], "cannot be decoded: .*truncated"),
    ("a truncated progressive JPEG", saved(PHOTO, "JPEG", progressive=True)[:-300], "cannot be decoded: .*truncated"),
    ("a JPEG without its end", saved(PHOTO, "JPEG")[:-2], "cannot be decoded: .*truncated"),
    ("a JPEG cut in its header", JPEG[:30], "not a picture|unreadable header|cannot be decoded"),
    ("a truncated PNG", saved(PHOTO, "PNG")[:-300], "cannot be decoded: .*truncated"),
    ("a truncated GIF", saved(PHOTO, "GIF")[:-300], "cannot be decoded: .*truncated"),
    ("a truncated WebP", saved(PHOTO, "WEBP")[:-300], "cannot be decoded|not a picture|unreadable header"),
    ("a truncated BMP", saved(PHOTO, "BMP")[:-300], "cannot be decoded: .*truncated"),
    ("a truncated TIFF", saved(PHOTO, "TIFF")[:-300], "cannot be decoded|unreadable header|not a picture"),
    ("EPS, which would start Ghostscript", saved(quarters(), "EPS"), "not a picture"),
    ("PDF", saved(quarters(), "PDF"), "not a picture"),
    ("TGA, which nobody can tell from noise", saved(quarters(), "TGA"), "not a picture"),
    ("an icon", saved(quarters(), "ICO"), "not a picture"),
    ("CMYK, as Adobe stores it", cmyk_jpeg(adobe=True), QUARTERS),
    ("CMYK without Adobe's mark", cmyk_jpeg(adobe=False), QUARTERS),
    ("CMYK in a TIFF", saved(quarters().convert("CMYK"), "TIFF"), QUARTERS),
    ("YCbCr in a TIFF", saved(quarters().convert("YCbCr"), "TIFF"), QUARTERS),
    ("Lab in a TIFF, whose 8 bits miss the corners", saved(lab(), "TIFF"),
     [(251, 5, 4), (13, 254, 14), (22, 7, 252), WHITE]),
    ("grey, JPEG", saved(GREY, "JPEG", quality=95), GREYS),
    ("grey, PNG", saved(GREY, "PNG"), GREYS),
    ("grey with alpha", saved(GREY.convert("LA"), "PNG"), GREYS),
    ("black and white", saved(quarters([WHITE, BLACK, BLACK, WHITE]).convert("1"), "PNG"),
     [WHITE, BLACK, BLACK, WHITE]),
    ("16-bit grey, PNG", saved(SIXTEEN, "PNG"), GREYS),
    ("16-bit grey, TIFF", saved(SIXTEEN, "TIFF"), GREYS),
    ("16-bit colours, PNG", sixteen_bit_rgb_png(), QUARTERS),
    ("32-bit grey", saved(THIRTY_TWO, "TIFF"), "pixels from -?\\d+ to \\d+: more than 16 bits"),
    ("floating-point pixels", saved(FRACTIONS, "TIFF"), "floating-point pixels"),
    ("a palette, PNG", saved(quarters().quantize(8), "PNG"), QUARTERS),
    ("a palette with a transparent colour, on white", palette_with_a_transparent_colour(), QUARTERS),
    ("alpha, PNG: on white", saved(rgba(), "PNG"), QUARTERS),
    ("alpha, WebP: on white", saved(rgba(), "WEBP", lossless=True), QUARTERS),
    ("a transparent GIF: on white", saved(rgba(), "GIF"), QUARTERS),
    *((f"EXIF orientation {n}, JPEG", turned("JPEG", n), QUARTERS) for n in range(9)),
    *((f"EXIF orientation {n}, PNG", turned("PNG", n), QUARTERS) for n in range(1, 9)),
    *((f"EXIF orientation {n}, TIFF", turned("TIFF", n), QUARTERS) for n in range(1, 9)),
    *((f"EXIF orientation {n}, WebP", turned("WEBP", n), QUARTERS) for n in range(1, 9)),
    *((f"a decompression bomb, {kind}", bomb(kind), r"\d{5} x \d{5} pixels, more than ingest.max_megapixels allows")
      for kind in BOMBS),
    ("more pixels than allowed", saved(Image.new("L", (1001, 1000)), "PNG"), "1001 x 1000 pixels, more than"),
    ("1 x 1", saved(Image.new("RGB", (1, 1), RED), "PNG"), [RED] * 4),
    ("1 x 5000", saved(Image.new("RGB", (1, 5000), RED), "PNG"), "1 x 5000 pixels: thinner than 1:100"),
    ("5000 x 1", saved(Image.new("RGB", (5000, 1), RED), "PNG"), "5000 x 1 pixels: thinner than 1:100"),
]  # fmt: skip
if features.check("avif"):
    CASES.append(("an AVIF named .jpg", saved(quarters(), "AVIF", quality=95), QUARTERS))

NAMES = [
    "two words.jpg", " blanks around .jpg", "it's.jpg", 'say "hi".jpg', "comma,comma.jpg", "grüße.jpg",
    "gru\u0308ße, as a Mac packs it.jpg", "写真.jpg", "🐈.jpg", "UPPER.JPG", "no suffix", "two.dots.jpg", "-rf.jpg",
    "$(touch x).jpg", "%s%n.jpg", "#1.jpg", "a" * 200 + ".jpg",
]  # fmt: skip


def look(root: Path) -> tuple[pd.DataFrame, dict[str, str]]:
    """Folders layout; (images, reasons by file)."""
    values = {
        "path": "", "layout": "folders", "id_column": "", "label_column": "", "max_megapixels": 1,
        "max_rejected_pct": 60.0, "depth": "used",
    }  # fmt: skip
    items = Items("ingest", {}, ItemsParams(max_gib=0))
    table, rejected = ingest(root, IngestParams.model_validate(values), items, None)
    return table, dict(zip(rejected["file"], rejected["reason"], strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes with a good picture each."""
    for label in ("cat", "dog"):
        for part in ("train", "valid"):
            (tmp_path / "p" / part / label).mkdir(parents=True)
        (tmp_path / "p/train" / label / "good.jpg").write_bytes(JPEG)
    return tmp_path / "p"


def colours_of(image: Image.Image) -> Colours:
    points = [(x * image.width // 4, y * image.height // 4) for y in (1, 3) for x in (1, 3)]
    return [image.convert("RGB").getpixel(point) for point in points]  # type: ignore[misc]


@pytest.mark.parametrize(("data", "expected"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_a_file(folder: Path, data: bytes, expected: Colours | str) -> None:
    (folder / "train/cat/x.jpg").write_bytes(data)
    table, reasons = look(folder)
    if isinstance(expected, str):
        assert table["id"].tolist() == ["cat/good", "dog/good"]
        assert list(reasons) == ["train/cat/x.jpg"]
        assert pd.Series(reasons).str.fullmatch(f"({expected}).*").all(), reasons
        return
    assert reasons == {}
    row = table.set_index("id").loc["cat/x"]
    image = decode(data, LIMIT)
    assert image.mode in ("RGB", "L")
    assert image.size == (row["width"], row["height"])
    assert image.size in ((WIDTH, HEIGHT), (1, 1))
    np.testing.assert_allclose(colours_of(image), expected, atol=8)


@pytest.mark.parametrize("name", NAMES)
def test_a_name(folder: Path, name: str) -> None:
    (folder / "train/cat" / name).write_bytes(JPEG)
    table, reasons = look(folder)
    assert reasons == {}
    assert f"train/cat/{name}" in table["file"].tolist()


def links_out(folder: Path) -> None:
    (folder.parent / "elsewhere.jpg").write_bytes(JPEG)
    (folder / "train/cat/x.jpg").symlink_to("../../../elsewhere.jpg")


def links_nowhere(folder: Path) -> None:
    (folder / "train/cat/x.jpg").symlink_to("nothing.jpg")


def links_to_itself(folder: Path) -> None:
    (folder / "train/cat/x.jpg").symlink_to("x.jpg")


def links_to_a_folder(folder: Path) -> None:
    (folder / "train/cat/x.jpg").symlink_to("..")


def is_a_pipe(folder: Path) -> None:
    os.mkfifo(folder / "train/cat/x.jpg")


def is_not_utf8(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder) + b"/train/cat/\xe9.jpg")).write_bytes(JPEG)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (links_out, {"train/cat/x.jpg": "a link out of the folder"}),
        (links_nowhere, {"train/cat/x.jpg": "No such file or directory"}),
        (links_to_itself, {"train/cat/x.jpg": "Too many levels of symbolic links"}),
        (links_to_a_folder, {"train/cat/x.jpg": "a link to a folder: not followed"}),
        (is_a_pipe, {"train/cat/x.jpg": "not a regular file"}),
        (is_not_utf8, {"train/cat/\ufffd.jpg": "a name that is not UTF-8"}),
    ],
)
def test_no_plain_file(folder: Path, make: Callable[[Path], None], expected: dict[str, str]) -> None:
    make(folder)
    table, reasons = look(folder)
    assert table["id"].tolist() == ["cat/good", "dog/good"]
    assert reasons == expected


def test_a_link_inside_the_folder_is_a_picture(folder: Path) -> None:
    (folder / "train/cat/x.jpg").symlink_to("good.jpg")
    table, reasons = look(folder)
    assert (table["id"].tolist(), reasons) == (["cat/good", "cat/x", "dog/good"], {})


def test_a_folder_named_like_a_picture_is_a_folder(folder: Path) -> None:
    (folder / "train/cat/x.jpg").mkdir()
    (folder / "train/cat/x.jpg/1.jpg").write_bytes(JPEG)
    table, reasons = look(folder)
    assert table.loc[table["id"] == "cat/x.jpg/1", "label"].item() == "cat"
    assert reasons == {}


def as_nobody(work: Callable[[], None]) -> None:
    """In a child, without root's right to read everything."""
    child = os.fork()
    if not child:
        if os.geteuid() == 0:
            os.seteuid(65534)
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def open_to_all(path: Path) -> None:
    for parent in [path, *path.parents]:
        if parent.owner() != "root" or os.geteuid() == 0:
            parent.chmod(parent.stat().st_mode | 0o055)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_no_permission(folder: Path) -> None:
    (folder / "train/cat/x.jpg").write_bytes(JPEG)
    (folder / "train/cat/x.jpg").chmod(0)
    open_to_all(folder)

    def work() -> None:
        table, reasons = look(folder)
        assert reasons == {"train/cat/x.jpg": "Permission denied"}
        assert len(table) == 2

    as_nobody(work)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_folder_that_may_not_be_listed_is_not_left_out(folder: Path) -> None:
    (folder / "train/dog").chmod(0)
    open_to_all(folder)

    def work() -> None:
        with pytest.raises(StageError, match="cannot list .*/train/dog: Permission denied"):
            look(folder)

    as_nobody(work)


@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_is_refused_by_its_header(kind: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pixel is decoded, and in a process of its own no memory taken: 10.8 GB would be needed."""
    path = folder / "train/cat/x.jpg"
    path.write_bytes(bomb(kind))
    with monkeypatch.context() as patch:
        patch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded"))
        with pytest.raises(Exception, match="more than ingest.max_megapixels"):
            decode(path.read_bytes(), LIMIT)
    program = r"""
import re, sys
from stages.vision.files.images import BadPictureError, decode
peak = lambda: int(re.search(r"VmHWM:\s*(\d+)", open("/proc/self/status").read())[1]) // 1024
before = peak()
try:
    decode(open(sys.argv[1], "rb").read(), 1_000_000)
except BadPictureError:
    print(peak() - before)
"""
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], cwd=root, capture_output=True, encoding="utf-8", check=True
    )
    assert int(done.stdout) < 50  # MiB
