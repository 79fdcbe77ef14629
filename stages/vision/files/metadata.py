"""Finds the unreadable metadata of a picture file, and makes copies of the file without them.

No picture is rejected for its metadata: `versions` yields copies with less and less metadata, until Pillow can read
one. The bytes of the pixels never change, nor those that decoding needs (palettes, transparency, Adobe's marker).
"""

import re
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import NamedTuple

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
PNG_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
PNG_LENGTHS = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9, b"acTL": 8, b"fcTL": 26, b"fdAT": 4}  # minimal lengths
PNG_NAMES = {b"eXIf": "EXIF", b"iCCP": "ICC profile", b"tEXt": "text", b"zTXt": "text", b"iTXt": "text"}
XMP_KEY = b"XML:com.adobe.xmp\0"
WEBP_PIXELS = (b"VP8X", b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF")
WEBP_NAMES = {b"EXIF": "EXIF", b"ICCP": "ICC profile", b"XMP ": "XMP"}
WEBP_FLAGS = {"EXIF": 0x08, "ICC profile": 0x20, "XMP": 0x04}  # bits in the chunk VP8X
FRAMES = (*range(0xC0, 0xC4), *range(0xC5, 0xC8), *range(0xC9, 0xCC), *range(0xCD, 0xD0))  # JPEG's SOF markers
SCAN = 0xDA
TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
TIFF_PIXELS = {
    *range(254, 260), 262, 266, 273, 274, *range(277, 282), 284, 292, 293, 317, *range(320, 326), 330, 332, 333, 334,
    336, *range(338, 342), 347, *range(512, 522), *range(529, 533),
}  # fmt: skip
TIFF_NAMES = {700: "XMP", 34665: "EXIF", 34675: "ICC profile", 34853: "EXIF", 40965: "EXIF"}
MAX_DECOMPRESSED_BYTES = 1 << 20  # Pillow's limit
PNG_CHUNK = re.compile(rb"PLTE|tRNS|IDAT|IEND|[a-z][A-Za-z]{3}")
JPEG_SEGMENT = re.compile(rb"\xff[\xc0-\xc4\xdb\xdd\xe0-\xef\xfe]")
WEBP_CHUNK = re.compile(rb"VP8[ L]|ALPH|ANIM|EXIF|XMP ")
MAX_STARTS = 200  # this many positions are tried after a wrong length


class Part(NamedTuple):
    """A part of the file with metadata: bytes `start` to `end`, and whether they can be read.

    `checksum_is_valid` is True if the format has no checksums.
    """

    name: str
    start: int
    end: int
    readable: bool
    checksum_is_valid: bool = True


class Kind(NamedTuple):
    """The functions for a file format: `parts` lists the parts with metadata, `without` removes some of them."""

    parts: Callable[[bytes], list[Part]]
    without: Callable[[bytes, Sequence[Part]], bytes]


def unreadable(data: bytes) -> list[str]:
    """Returns the distinct names of the unreadable metadata of a picture file: "EXIF", "ICC profile", ..."""
    return list(dict.fromkeys(part.name for part in _parts(data) if not part.readable))


def without_corrupt_parts(data: bytes) -> bytes:
    """Returns the file without the metadata whose checksums are wrong, because their content cannot be trusted."""
    kind = _kind(data)
    drop = [part for part in _parts(data) if not part.checksum_is_valid] if data.startswith(PNG) else []
    return kind.without(data, drop) if kind and drop else data


def versions(data: bytes) -> Iterator[bytes]:
    """Yields the file without unreadable metadata, then with only EXIF and XMP (orientation), then without any."""
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
    """Returns whether an EXIF block has a TIFF header and a first directory whose values lie within the block."""
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
    parts, offset = [], len(PNG)
    while offset + 8 <= len(data):
        (length,), name = struct.unpack_from(">I", data, offset), data[offset + 4 : offset + 8]
        end = offset + 12 + length
        if name not in PNG_PIXELS:
            is_valid = _png_checksum(data, offset)
            if not is_valid and not data[end + 4 : end + 8].isalpha():  # the length is wrong too
                end = _next_png_chunk(data, offset + 8)
            part_name = "XMP" if data.startswith(XMP_KEY, offset + 8) else PNG_NAMES.get(name, "other")
            readable = is_valid and _png_is_readable(name, data[offset + 8 : end - 4])
            parts.append(Part(part_name, offset, min(end, len(data)), readable, is_valid))
        offset = end
    return parts


def _png_checksum(data: bytes, offset: int) -> bool:
    (length,) = struct.unpack_from(">I", data, offset)
    end = offset + 8 + length
    return end + 4 <= len(data) and zlib.crc32(data[offset + 4 : end]) == int.from_bytes(data[end : end + 4], "big")


def _next_png_chunk(data: bytes, start: int) -> int:
    for number, match in enumerate(PNG_CHUNK.finditer(data, start + 4)):
        offset = match.start() - 4
        if number == MAX_STARTS:
            break
        if _png_checksum(data, offset):
            return offset
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
        decompressed = inflate.decompress(content[1:], MAX_DECOMPRESSED_BYTES)
    except zlib.error:
        return b""
    return decompressed if content[:1] == b"\0" and inflate.eof else b""


def _jpeg(data: bytes) -> list[Part]:
    """Returns the metadata up to the first scan. APP14 is included only if the decoder ignores it as too short."""
    parts, offset, profile = [], 2, list[bytes]()
    while offset + 4 <= len(data) and (marker := data[offset + 1]) != SCAN:
        if data[offset] != 0xFF or marker in (0x00, 0xFF):
            offset = data.find(b"\xff", offset + 1) % (len(data) + 1)
            continue
        end = offset + 2 + int.from_bytes(data[offset + 2 : offset + 4], "big")
        content = data[offset + 4 : end]
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            is_valid = end - offset >= 4 and data[end : end + 1] == b"\xff"
            if not is_valid:
                end = _next_jpeg_segment(data, offset + 4, end)
                content = data[offset + 4 : end]
            name, readable = _jpeg_metadata(marker, content)
            if name == "ICC profile":
                profile.append(content)
            if name != "pixels" or not is_valid:
                parts.append(Part(name, offset, end, is_valid and readable))
        offset = max(end, offset + 2)
    if profile and not _icc_is_readable(b"".join(content[14:] for content in sorted(profile))):
        parts = [part._replace(readable=part.readable and part.name != "ICC profile") for part in parts]
    return parts


def _jpeg_metadata(marker: int, content: bytes) -> tuple[str, bool]:
    """Returns (name, whether the content can be read). The name "pixels" means data that decoding needs."""
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
    """Returns the start of the segments that lead to the largest frame, or `end` if there are none.

    An EXIF block may contain a small JPEG, which has a frame too.
    """
    best_start, largest = end, 0
    for number, match in enumerate(JPEG_SEGMENT.finditer(data, start)):
        if number == MAX_STARTS:
            break
        if (pixels := _frame_pixels(data, match.start())) > largest:
            best_start, largest = match.start(), pixels
    return best_start


def _frame_pixels(data: bytes, offset: int) -> int:
    """Returns the number of pixels of the frame that the segments from `offset` on describe; 0 if no scan follows."""
    pixels = 0
    for _ in range(MAX_STARTS):
        if offset + 9 > len(data) or data[offset] != 0xFF:
            return 0
        marker, length = data[offset + 1], int.from_bytes(data[offset + 2 : offset + 4], "big")
        if marker == SCAN:
            return pixels
        if marker in FRAMES:
            height, width = struct.unpack_from(">HH", data, offset + 5)
            pixels = height * width
        offset += 2 + length
    return 0


def _gif(data: bytes) -> list[Part]:
    """Returns the metadata up to the first picture.

    A graphic control block sets the transparency, so it is only included if it is too short.
    """
    table = 3 << (data[10] % 8 + 1) if data[10] & 0x80 else 0
    parts, offset = [], 13 + table
    while data[offset] == 0x21:
        end = offset + 2
        sizes = [data[end]]
        while data[end]:
            end += 1 + data[end]
            sizes.append(data[end])
        end += 1
        label, readable = data[offset + 1], True
        if label == 0xF9:
            readable = sizes[0] >= 4
        elif label == 0xFF and data.startswith((b"NETSCAPE2.0", b"ANIMEXTS1.0"), offset + 3):
            readable = len(sizes) > 2 and sizes[1] >= 3
        if label != 0xF9 or not readable:
            parts.append(Part("text" if label == 0xFE else "other", offset, end, readable))
        offset = end
    return parts


def _webp(data: bytes) -> list[Part]:
    parts, offset = [], 12
    while offset + 8 <= len(data):
        name, (size,) = data[offset : offset + 4], struct.unpack_from("<I", data, offset + 4)
        end = offset + 8 + size + size % 2
        if name not in WEBP_PIXELS:
            is_complete = offset + 8 + size <= len(data) and (
                end + 8 > len(data) or _looks_like_riff(data[end : end + 4])
            )
            if not is_complete:
                end = _next_webp_chunk(data, offset + 8)
            part_name = WEBP_NAMES.get(name, "other")
            readable = {"EXIF": exif_is_readable, "ICC profile": _icc_is_readable}.get(part_name, bool)
            is_readable = is_complete and readable(data[offset + 8 : offset + 8 + size])
            parts.append(Part(part_name, offset, min(end, len(data)), is_readable))
        offset = end
    return parts


def _looks_like_riff(name: bytes) -> bool:
    return re.fullmatch(rb"[A-Za-z0-9 ]{4}", name) is not None


def _next_webp_chunk(data: bytes, start: int) -> int:
    for match in WEBP_CHUNK.finditer(data, start):
        offset = match.start()
        if offset + 8 <= len(data) and offset + 8 + struct.unpack_from("<I", data, offset + 4)[0] <= len(data):
            return offset
    return len(data)


def _cut_webp(data: bytes, parts: Sequence[Part]) -> bytes:
    file = bytearray(_cut(data, parts))
    struct.pack_into("<I", file, 4, len(file) - 8)
    if file[12:16] == b"VP8X" and len(file) > 20:
        file[20] &= ~sum({WEBP_FLAGS.get(part.name, 0) for part in parts})
    return bytes(file)


class Directory:
    """The first directory of a TIFF file or EXIF block.

    `count` entries of `size` bytes lie within the file, from `start` on. `is_whole`: all entries lie within the file.
    Raises struct.error if the header is truncated.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.order = data, "<" if data[:2] == b"II" else ">"
        is_bigtiff = b"+" in data[:4]
        self.number, self.size = ("Q", 20) if is_bigtiff else ("I", 12)
        (offset,) = struct.unpack_from(self.order + self.number, data, 8 if is_bigtiff else 4)
        self.first, self.counter = offset, "Q" if is_bigtiff else "H"
        self.start = offset + struct.calcsize(self.counter)
        n_entries = struct.unpack_from(self.order + self.counter, data, offset)[0] if self.start <= len(data) else 0
        self.count = min(n_entries, max(0, (len(data) - self.start) // self.size))
        self.is_whole = 8 <= offset < self.start <= len(data) and self.count == n_entries

    def tag(self, entry: int) -> int:
        return int(struct.unpack_from(self.order + "H", self.data, self.start + entry * self.size)[0])

    def values(self, entry: int) -> tuple[int, int, int]:
        """Returns (type, start of the values, size of the values in bytes). The size is -1 for an unknown type."""
        offset = self.start + entry * self.size
        kind, n = struct.unpack_from(self.order + "H" + self.number, self.data, offset + 2)
        inline_size = struct.calcsize(self.number)
        size = n * TIFF_SIZES[kind] if kind in TIFF_SIZES else -1
        start = offset + self.size - inline_size
        if size > inline_size:
            (start,) = struct.unpack_from(self.order + self.number, self.data, start)
        return kind, start, size

    def holds(self, entry: int) -> bool:
        _, start, size = self.values(entry)
        return size >= 0 and start + size <= len(self.data)

    def numbers(self, wanted_tag: int) -> tuple[int, ...]:
        """Returns the integers of a tag; () if the tag is missing or has values that are not integers."""
        for entry in range(self.count):
            kind, start, size = self.values(entry)
            if self.tag(entry) == wanted_tag and kind in (1, 3, 4) and 0 < size <= 64 and self.holds(entry):
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
        offset = directory.start + entry * directory.size
        parts.append(Part(TIFF_NAMES.get(tag, "other"), offset, offset + directory.size, readable))
    return parts


def _points_to_a_directory(directory: Directory, start: int) -> bool:
    (offset,) = struct.unpack_from(directory.order + directory.number, directory.data, start)
    entries_start = offset + struct.calcsize(directory.counter)
    if not 8 <= offset < entries_start <= len(directory.data):
        return False
    (count,) = struct.unpack_from(directory.order + directory.counter, directory.data, offset)
    return bool(entries_start + count * directory.size <= len(directory.data))


def _cut_tiff(data: bytes, parts: Sequence[Part]) -> bytes:
    """Removes entries of the directory. Offsets count from the start of the file, so only later entries are moved."""
    directory, file = Directory(data), bytearray(data)
    removed_entries = {(part.start - directory.start) // directory.size for part in parts}
    kept_entries = [entry for entry in range(directory.count) if entry not in removed_entries]
    offsets = [directory.start + entry * directory.size for entry in kept_entries]
    table = b"".join(data[offset : offset + directory.size] for offset in offsets)
    end = directory.start + directory.count * directory.size
    table += data[end : end + struct.calcsize(directory.number)]  # offset of the next directory
    file[directory.start : directory.start + len(table)] = table
    struct.pack_into(directory.order + directory.counter, file, directory.first, len(kept_entries))
    return bytes(file)


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yields (type, start and end of the content) of each box of an ISO media file."""
    while start + 8 <= end:
        size, name = struct.unpack_from(">I4s", data, start)
        content_start = start + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content_start)
            content_start += 8
        stop = end if size == 0 else start + size
        if stop < content_start or stop > end:
            return
        yield name, content_start, stop
        start = stop


def _avif(data: bytes) -> list[Part]:
    """Returns the parts with the four letters that name an item or a profile: decoders ignore other names."""
    parts = []
    for name, start, end in _boxes(data, 0, len(data)):
        for inner, offset, stop in _boxes(data, start + 4, end) if name == b"meta" else ():
            if inner == b"iinf":
                for entry, first, _ in _boxes(data, offset + (6 if data[offset] == 0 else 8), stop):
                    letters = first + (8 if data[first] == 2 else 10)
                    kind = data[letters : letters + 4]
                    if entry == b"infe" and data[first] in (2, 3) and kind in (b"Exif", b"mime"):
                        parts.append(Part("EXIF" if kind == b"Exif" else "XMP", letters, letters + 4, True))
            if inner == b"iprp":
                for box, first, last in _boxes(data, offset, stop):
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
    """Returns the integers of a tag of a TIFF file; () if there are none."""
    try:
        return Directory(data).numbers(tag)
    except struct.error:
        return ()


def changed_tiff(data: bytes, tag: int, old: int, new: int) -> bytes | None:
    """Returns the file with `new` in a tag instead of `old`, or None if the tag has another value."""
    if tiff_numbers(data, tag) != (old,):
        return None
    directory, file = Directory(data), bytearray(data)
    for entry in range(directory.count):
        kind, start, _ = directory.values(entry)
        if directory.tag(entry) == tag:
            struct.pack_into(directory.order + {1: "B", 3: "H", 4: "I"}[kind], file, start, new)
    return bytes(file)
