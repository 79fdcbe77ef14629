"""The id of a picture, and which pictures an id may mean: one rule for labels.csv, all outputs and stages.predict.

An id is the file's path below train/, valid/, test/ or the folder that predict was given, without its suffix and in
Unicode's composed form (NFC), as most systems except macOS write it. If several pictures would have the same id, each
keeps its suffix.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

SUFFIXES = frozenset(
    [".apng", ".avif", ".avifs", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm"]
    + [".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)


def to_nfc(name: str) -> str:
    """`name` in Unicode's composed form (NFC), in which names and labels are compared."""
    return unicodedata.normalize("NFC", name)


def has_picture_suffix(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in SUFFIXES


def without_suffix(file: str) -> str:
    return os.path.splitext(file)[0]


def picture_ids(paths: Sequence[str]) -> list[str]:
    """An id for each file of a folder; `paths` are relative to that folder.

    Ids are unique if the composed paths are. They depend on names alone, so that a broken picture renames no other. A
    file of another kind (1.txt beside 1.jpg) keeps its suffix and leaves the picture its id.
    """
    names = [to_nfc(path) for path in paths]
    taken = set(names)
    pictures = Counter(without_suffix(name) for name in names if has_picture_suffix(name))
    others = Counter(without_suffix(name) for name in names if not has_picture_suffix(name))

    def id_of(name: str) -> str:
        stem = without_suffix(name)
        rivals = pictures[stem] if has_picture_suffix(name) else pictures[stem] + others[stem]
        return stem if rivals == 1 and stem not in taken else name

    return [id_of(name) for name in names]


def matcher(paths: Sequence[str]) -> Callable[[str], list[str]]:
    """Returns a function from an id (in NFC) to those of `paths` that it may mean: none, one or several.

    An id is a path with its suffix, a path without it, a name with its suffix or a name without it: the first of these
    that fits any file decides. For ids without a suffix, pictures take precedence over other files.
    """
    pictures, others = [p for p in paths if has_picture_suffix(p)], [p for p in paths if not has_picture_suffix(p)]
    unique: dict[str, str] = {}
    ambiguous: dict[str, list[str]] = {}

    def add(files: Iterable[str], name_of: Callable[[str], str]) -> None:
        """Later calls override names of earlier ones."""
        new: dict[str, str] = {}
        shared: dict[str, list[str]] = {}
        for file in files:
            name = to_nfc(name_of(file))
            if name in new:
                shared.setdefault(name, [new[name]]).append(file)
            new.setdefault(name, file)
        for name in new.keys() & ambiguous.keys():
            del ambiguous[name]
        unique.update(new)
        ambiguous.update(shared)

    for files in (others, pictures):
        add(files, lambda file: without_suffix(os.path.basename(file)))
    add(paths, os.path.basename)
    for files in (others, pictures):
        add(files, without_suffix)
    add(paths, str)

    def files_of(id_: str) -> list[str]:
        return ambiguous[id_] if id_ in ambiguous else [unique[id_]] if id_ in unique else []

    return files_of


def unicode_variants(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ only in their Unicode form, sorted, keyed by their composed form."""
    forms: dict[str, set[str]] = {}
    for name in names:
        if not name.isascii():
            forms.setdefault(to_nfc(name), set()).add(name)
    return {name: sorted(found) for name, found in sorted(forms.items()) if len(found) > 1}
