"""Finds the unreadable metadata of a picture file, and makes copies of the file without it.

No picture is rejected for its metadata: `versions` yields the file with less and less of it, until Pillow can read one.
The bytes of pixels never change, nor those needed to decode them (palettes, transparency, Adobe's marker).
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
PNG_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"acTL": 8, b"fcTL": 26, b"fdAT": 4}  # at least
PNG_NAMES = {b"eXIf": "EXIF", b"iCCP": "ICC profile", b"tEXt": "text", b"zTXt": "text", b"iTXt": "text"}
XMP_KEY = b"XML:com.adobe.xmp\0"
WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
WEBP_NAMES = {b"EXIF": "EXIF", b"ICCP": "ICC profile", b"XMP ": "XMP"}
WEBP_FLAGS = {"EXIF": 0x08, "ICC profile": 0x20, "XMP": 0x04}  # of VP8X
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # SOF markers of JPEG
SCAN = 0xDA
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TIFF_PIXELS = {
    *range(254, 260), 262, 266, 273, 274, *range(277, 282), 284, 292, 293, 317, *range(320, 326), 330, 332, 333, 334,
    336, *range(338, 342), 347, *range(512, 522), *range(529, 533),
}  # fmt: skip
TIFF_NAMES = {700: "XMP", 34665: "EXIF", 34675: "ICC profile", 34853: "EXIF", 40965: "EXIF"}
LARGEST = 1 << 20  # decompressed bytes: Pillow's limit
PNG_CHUNK = re.compile(rb"PLTE|tRNS|IDAT|IEND|[a-z][A-Za-z]{3}")
JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xc4\xdb\xdd\xe0-\xef\xfe]")
WEBP_CHUNK = re.compile(rb"VP8[ L]|ALPH|ANIM|EXIF|XMP ")
MAX_STARTS = 200  # positions that are tried after a wrong length


class Part(NamedTuple):
    """A part of the file with metadata: bytes `start` to `end`, and whether they can be read. `intact`: the checksum,
    if the format has one, is correct."""

    name: str
    start: int
    end: int
    readable: bool
    intact: bool = True


class Kind(NamedTuple):
    """Functions of a file format: list the parts with metadata, and remove some of them."""

    parts: Callable[[bytes], list[Part]]
    without: Callable[[bytes, Sequence[Part]], bytes]


def unreadable(data: bytes) -> list[str]:
    """The distinct names of the unreadable metadata of a picture file: "EXIF", "ICC profile", ..."""
    return list(dict.fromkeys(part.name for part in _parts(data) if not part.readable))


def intact(data: bytes) -> bytes:
    """The file without metadata whose checksum is wrong: its content cannot be trusted."""
    kind = _kind(data)
    drop = [part for part in _parts(data) if not part.intact] if data.startswith(PNG) else []
    return kind.without(data, drop) if kind and drop else data


def versions(data: bytes) -> Iterator[bytes]:
    """The file without unreadable metadata; with only EXIF and XMP, which hold the orientation; without any."""
    kind, parts = _kind(data), _parts(data)
    seen = {0}
    for drop in (
        [part for part in parts if not part.readable],
        [part for part in parts if not part.readable or part.name not in ("EXIF", "XMP")],
        parts,
    ):
        if kind and len(drop) not in seen:
            seen.add(len(drop))
            yield kind.without(data, drop)


def _kind(data: bytes) -> Kind | None:
    if data.startswith(PNG):
        return Kind(_png, _cut)
    if data.startswith(JPEG):
        return Kind(_jpeg, _cut)
    if data.startswith(b"GIF8"):
        return Kind(_gif, _cut)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return Kind(_webp, _cut_webp)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return Kind(_tiff, _cut_tiff)
    if data[4:8] == b"ftyp":
        return Kind(_avif, _rename)
    return None


def _parts(data: bytes) -> list[Part]:
    kind = _kind(data)
    try:
        return kind.parts(data) if kind else []
    except (struct.error, IndexError):  # the file ends early
        return []


def _cut(data: bytes, parts: Sequence[Part]) -> bytes:
    edges = [0, *chain.from_iterable((part.start, part.end) for part in parts), len(data)]
    return b"".join(data[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def exif_is_readable(exif: bytes) -> bool:
    """Whether an EXIF block has a TIFF header and a first directory whose values lie within the block."""
    exif = re.sub(rb"^(Exif\0\0)+", b"", exif)
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return False
    try:
        directory = Directory(exif)
        return directory.is_whole and all(directory.holds(number) for number in range(directory.count))
    except struct.error:
        return False


def _icc_is_readable(profile: bytes) -> bool:
    return len(profile) >= 128 and profile[36:40] == b"acsp"


def _png(data: bytes) -> list[Part]:
    parts, at = [], len(PNG)
    while at + 8 <= len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if name not in PNG_PIXELS:
            right = _png_checksum(data, at)
            if not right and not data[end + 4 : end + 8].isalpha():  # the length is wrong too
                end = _next_png_chunk(data, at + 8)
            known = "XMP" if data.startswith(XMP_KEY, at + 8) else PNG_NAMES.get(name, "other")
            readable = right and _png_is_readable(name, data[at + 8 : end - 4])
            parts.append(Part(known, at, min(end, len(data)), readable, right))
        at = end
    return parts


def _png_checksum(data: bytes, at: int) -> bool:
    (length,) = struct.unpack_from(">I", data, at)
    end = at + 8 + length
    return end + 4 <= len(data) and zlib.crc32(data[at + 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _next_png_chunk(data: bytes, start: int) -> int:
    for number, found in enumerate(PNG_CHUNK.finditer(data, start + 4)):
        at = found.start() - 4
        if number == MAX_STARTS:
            break
        if _png_checksum(data, at):
            return at
    return len(data)


def _png_is_readable(name: bytes, content: bytes) -> bool:
    if name == b"eXIf":
        return exif_is_readable(content)
    if name == b"iCCP":
        return _icc_is_readable(_inflated(content.partition(b"\0")[2]))
    if name == b"zTXt":
        return bool(_inflated(content.partition(b"\0")[2]))
    if name == b"iTXt":
        key, _, rest = content.partition(b"\0")
        text = rest[2:].split(b"\0", 2)
        return bool(key) and len(text) == 3 and (not rest[0] or bool(_inflated(rest[1:2] + text[2])))
    return len(content) >= PNG_LENGTHS.get(name, 0)


def _inflated(content: bytes) -> bytes:
    """Decompresses content after a byte that names the method; b"" if that fails or exceeds Pillow's limit."""
    inflate = zlib.decompressobj()
    try:
        plain = inflate.decompress(content[1:], LARGEST)
    except zlib.error:
        return b""
    return plain if content[:1] == b"\0" and inflate.eof else b""


def _jpeg(data: bytes) -> list[Part]:
    """Metadata up to the first scan. APP14 is included only if too short for the decoder, which then ignores it."""
    parts, at, profile = [], 2, list[bytes]()
    while at + 4 <= len(data) and (marker := data[at + 1]) != SCAN:
        if data[at] != 0xFF or marker in (0x00, 0xFF):
            at = data.find(b"\xff", at + 1) % (len(data) + 1)
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : end]
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            right = end - at >= 4 and data[end : end + 1] == b"\xff"
            if not right:
                end = _next_jpeg_segment(data, at + 4, end)
                content = data[at + 4 : end]
            name, readable = _jpeg_metadata(marker, content)
            if name == "ICC profile":
                profile.append(content)
            if name != "pixels" or not right:
                parts.append(Part(name, at, end, right and readable))
        at = max(end, at + 2)
    if profile and not _icc_is_readable(b"".join(content[14:] for content in sorted(profile))):
        parts = [part._replace(readable=part.readable and part.name != "ICC profile") for part in parts]
    return parts


def _jpeg_metadata(marker: int, content: bytes) -> tuple[str, bool]:
    """(name, whether it can be read); "pixels" means data that is needed to decode them."""
    if marker == 0xE0 and content.startswith(b"JFIF"):
        return ("pixels" if len(content) >= 14 else "other"), False
    if marker == 0xEE and content.startswith(b"Adobe"):
        return ("pixels" if len(content) >= 12 else "other"), False
    if marker == 0xE1 and content.startswith(b"Exif\0"):
        return "EXIF", exif_is_readable(content)
    if marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
        return "XMP", True
    if marker == 0xE2 and content.startswith(b"ICC_PROFILE\0"):
        return "ICC profile", len(content) > 14
    return ("text" if marker == 0xFE else "other"), True


def _next_jpeg_segment(data: bytes, start: int, end: int) -> int:
    """Start of the segments that lead to the largest frame; `end` if there are none. An EXIF block may contain a small
    JPEG."""
    best, largest = end, 0
    for number, found in enumerate(JPEG_SEGMENT.finditer(data, start)):
        if number == MAX_STARTS:
            break
        if (pixels := _frame_pixels(data, found.start())) > largest:
            best, largest = found.start(), pixels
    return best


def _frame_pixels(data: bytes, at: int) -> int:
    """Pixels of the frame that the segments from `at` on describe; 0 if no scan follows."""
    pixels = 0
    for _ in range(MAX_STARTS):
        if at + 9 > len(data) or data[at] != 0xFF:
            return 0
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == SCAN:
            return pixels
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            pixels = height * width
        at += 2 + length
    return 0


def _gif(data: bytes) -> list[Part]:
    """Metadata up to the first picture. A graphic control block sets the transparency, unless it is too short."""
    table = 3 << (data[10] % 8 + 1) if data[10] & 0x80 else 0
    parts, at = [], 13 + table
    while data[at] == 0x21:
        end = at + 2
        sizes = [data[end]]
        while data[end]:
            end += 1 + data[end]
            sizes.append(data[end])
        end += 1
        label, readable = data[at + 1], True
        if label == 0xF9:
            readable = sizes[0] >= 4
        elif label == 0xFF and data.startswith((b"NETSCAPE2.0", b"ANIMEXTS1.0"), at + 3):
            readable = len(sizes) > 2 and sizes[1] >= 3
        if label != 0xF9 or not readable:
            parts.append(Part("text" if label == 0xFE else "other", at, end, readable))
        at = end
    return parts


def _webp(data: bytes) -> list[Part]:
    parts, at = [], 12
    while at + 8 <= len(data):
        name, (size,) = data[at : at + 4], struct.unpack_from("<I", data, at + 4)
        end = at + 8 + size + size % 2
        if name not in WEBP_PIXELS:
            complete = at + 8 + size <= len(data) and (end + 8 > len(data) or _looks_like_riff(data[end : end + 4]))
            if not complete:
                end = _next_webp_chunk(data, at + 8)
            known = WEBP_NAMES.get(name, "other")
            readable = {"EXIF": exif_is_readable, "ICC profile": _icc_is_readable}.get(known, bool)
            parts.append(Part(known, at, min(end, len(data)), complete and readable(data[at + 8 : at + 8 + size])))
        at = end
    return parts


def _looks_like_riff(name: bytes) -> bool:
    return re.fullmatch(rb"[A-Za-z0-9 ]{4}", name) is not None


def _next_webp_chunk(data: bytes, start: int) -> int:
    for found in WEBP_CHUNK.finditer(data, start):
        at = found.start()
        if at + 8 <= len(data) and at + 8 + struct.unpack_from("<I", data, at + 4)[0] <= len(data):
            return at
    return len(data)


def _cut_webp(data: bytes, parts: Sequence[Part]) -> bytes:
    file = bytearray(_cut(data, parts))
    struct.pack_into("<I", file, 4, len(file) - 8)
    if file[12:16] == b"VP8X" and len(file) > 20:
        file[20] &= ~sum({WEBP_FLAGS.get(part.name, 0) for part in parts})
    return bytes(file)


class Directory:
    """The first directory of a TIFF file or EXIF block: `count` entries of `size` bytes from `start` on that lie
    within the file. `is_whole`: all entries lie within the file. Raises struct.error if the header is truncated."""

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        big = b"+" in data[:4]
        self.number, self.size = ("Q", 20) if big else ("I", 12)
        (offset,) = struct.unpack_from(self.order + self.number, data, 8 if big else 4)
        self.first, self.counter = offset, "Q" if big else "H"
        self.start = offset + struct.calcsize(self.counter)
        announced = struct.unpack_from(self.order + self.counter, data, offset)[0] if self.start <= len(data) else 0
        self.count = min(announced, max(0, (len(data) - self.start) // self.size))
        self.is_whole = 8 <= offset < self.start <= len(data) and self.count == announced

    def tag(self, entry: int) -> int:
        return int(struct.unpack_from(self.order + "H", self.data, self.start + entry * self.size)[0])

    def values(self, entry: int) -> tuple[int, int, int]:
        """(type, start of the values, their size in bytes; -1 for an unknown type)."""
        at = self.start + entry * self.size
        kind, n = struct.unpack_from(self.order + "H" + self.number, self.data, at + 2)
        room = struct.calcsize(self.number)
        size = n * TIFF_SIZES[kind] if kind in TIFF_SIZES else -1
        inside = at + self.size - room
        return (
            kind,
            inside if size <= room else struct.unpack_from(self.order + self.number, self.data, inside)[0],
            size,
        )

    def holds(self, entry: int) -> bool:
        _, start, size = self.values(entry)
        return size >= 0 and start + size <= len(self.data)

    def numbers(self, wanted: int) -> tuple[int, ...]:
        """The integers of a tag; () if it is missing or has other values."""
        for entry in range(self.count):
            kind, start, size = self.values(entry)
            if self.tag(entry) == wanted and kind in (1, 3, 4) and 0 < size <= 64 and self.holds(entry):
                letter = {1: "B", 3: "H", 4: "I"}[kind]
                return struct.unpack_from(f"{self.order}{size // TIFF_SIZES[kind]}{letter}", self.data, start)
        return ()


def _tiff(data: bytes) -> list[Part]:
    directory = Directory(data)
    parts = []
    for entry in range(directory.count):
        tag, (kind, start, size) = directory.tag(entry), directory.values(entry)
        if tag in TIFF_PIXELS:
            continue
        readable = directory.holds(entry)
        if readable and tag in (34665, 34853):
            readable = kind in (4, 13, 16, 18) and _points_to_a_directory(directory, start)
        elif readable and tag == 34675:
            readable = _icc_is_readable(data[start : start + size])
        at = directory.start + entry * directory.size
        parts.append(Part(TIFF_NAMES.get(tag, "other"), at, at + directory.size, readable))
    return parts


def _points_to_a_directory(directory: Directory, start: int) -> bool:
    (at,) = struct.unpack_from(directory.order + directory.number, directory.data, start)
    within = at + struct.calcsize(directory.counter)
    if not 8 <= at < within <= len(directory.data):
        return False
    (count,) = struct.unpack_from(directory.order + directory.counter, directory.data, at)
    return bool(within + count * directory.size <= len(directory.data))


def _cut_tiff(data: bytes, parts: Sequence[Part]) -> bytes:
    """Removes entries. Offsets count from the start of the file, so only the later entries move up."""
    directory, file = Directory(data), bytearray(data)
    gone = {(part.start - directory.start) // directory.size for part in parts}
    kept = [number for number in range(directory.count) if number not in gone]
    table = b"".join(data[at : at + directory.size] for at in (directory.start + n * directory.size for n in kept))
    end = directory.start + directory.count * directory.size
    table += data[end : end + struct.calcsize(directory.number)]  # offset of the next directory
    file[directory.start : directory.start + len(table)] = table
    struct.pack_into(directory.order + directory.counter, file, directory.first, len(kept))
    return bytes(file)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start and end of the content) of the boxes of an ISO media file."""
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        inside = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, inside)
            inside += 8
        stop = end if size == 0 else start + size
        if stop < inside or stop > end:
            return
        yield name, inside, stop
        start = stop


def _avif(data: bytes) -> list[Part]:
    """The four letters that name an item or a profile: decoders ignore it without them."""
    parts = []
    for name, start, end in _boxes(data, 0, len(data)):
        for inner, at, stop in _boxes(data, start + 4, end) if name == b"meta" else ():
            if inner == b"iinf":
                for entry, first, _ in _boxes(data, at + (6 if data[at] == 0 else 8), stop):
                    letters = first + (8 if data[first] == 2 else 10)
                    kind = data[letters : letters + 4]
                    if entry == b"infe" and data[first] in (2, 3) and kind in (b"Exif", b"mime"):
                        parts.append(Part("EXIF" if kind == b"Exif" else "XMP", letters, letters + 4, True))
            if inner == b"iprp":
                for box, first, last in _boxes(data, at, stop):
                    for prop, content, _ in _boxes(data, first, last) if box == b"ipco" else ():
                        if prop == b"colr" and data[content : content + 4] in (b"prof", b"rICC"):
                            readable = data[content + 40 : content + 44] == b"acsp"
                            parts.append(Part("ICC profile", content - 4, content, readable))
    return parts


def _rename(data: bytes, parts: Sequence[Part]) -> bytes:
    file = bytearray(data)
    for part in parts:
        file[part.start : part.end] = b"skip"
    return bytes(file)


def tiff_numbers(data: bytes, tag: int) -> tuple[int, ...]:
    """The integers of a tag of a TIFF file; () if there are none."""
    try:
        return Directory(data).numbers(tag)
    except struct.error:
        return ()


def changed_tiff(data: bytes, tag: int, old: int, new: int) -> bytes | None:
    """The file with `new` in a tag instead of `old`; None if the tag has another value."""
    if tiff_numbers(data, tag) != (old,):
        return None
    directory, file = Directory(data), bytearray(data)
    for entry in range(directory.count):
        kind, start, _ = directory.values(entry)
        if directory.tag(entry) == tag:
            struct.pack_into(directory.order + {1: "B", 3: "H", 4: "I"}[kind], file, start, new)
    return bytes(file)
