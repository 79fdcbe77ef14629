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
    """Returns `name` in Unicode's composed form (NFC), in which names and labels are compared."""
    return unicodedata.normalize("NFC", name)


def has_picture_suffix(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in SUFFIXES


def without_suffix(file: str) -> str:
    return os.path.splitext(file)[0]


def picture_ids(paths: Sequence[str]) -> list[str]:
    """Returns an id for each file of a folder; `paths` are relative to that folder.

    Ids are unique if the paths in NFC are unique. They depend only on names, so that a broken picture does not change
    the id of another picture. If 1.jpg and 1.txt are in a folder, the id of 1.jpg is 1, and 1.txt keeps its suffix.
    """
    names = [to_nfc(path) for path in paths]
    all_names = set(names)
    pictures = Counter(without_suffix(name) for name in names if has_picture_suffix(name))
    other_files = Counter(without_suffix(name) for name in names if not has_picture_suffix(name))

    def id_of(name: str) -> str:
        stem = without_suffix(name)
        n_same_stem = pictures[stem] if has_picture_suffix(name) else pictures[stem] + other_files[stem]
        return stem if n_same_stem == 1 and stem not in all_names else name

    return [id_of(name) for name in names]


def matcher(paths: Sequence[str]) -> Callable[[str], list[str]]:
    """Returns a function that maps an id (in NFC) to the list of `paths` that the id may mean.

    An id may be a path with suffix, a path without suffix, a name with suffix or a name without suffix. The first of
    these four that matches a file decides. For ids without suffix, pictures take precedence over other files.
    """
    pictures, other_files = [p for p in paths if has_picture_suffix(p)], [p for p in paths if not has_picture_suffix(p)]
    unique: dict[str, str] = {}
    ambiguous: dict[str, list[str]] = {}

    def add(files: Iterable[str], name_of: Callable[[str], str]) -> None:
        """Adds the names of `files`. A later call overrides the names of earlier calls."""
        first_files: dict[str, str] = {}
        several_files: dict[str, list[str]] = {}
        for file in files:
            name = to_nfc(name_of(file))
            if name in first_files:
                several_files.setdefault(name, [first_files[name]]).append(file)
            first_files.setdefault(name, file)
        for name in first_files.keys() & ambiguous.keys():
            del ambiguous[name]
        unique.update(first_files)
        ambiguous.update(several_files)

    for files in (other_files, pictures):
        add(files, lambda file: without_suffix(os.path.basename(file)))
    add(paths, os.path.basename)
    for files in (other_files, pictures):
        add(files, without_suffix)
    add(paths, str)

    def files_of(id_: str) -> list[str]:
        return ambiguous[id_] if id_ in ambiguous else [unique[id_]] if id_ in unique else []

    return files_of


def unicode_variants(names: Iterable[str]) -> dict[str, list[str]]:
    """Returns lists of names that differ only in their Unicode form, sorted, keyed by their composed form."""
    forms: dict[str, set[str]] = {}
    for name in names:
        if not name.isascii():
            forms.setdefault(to_nfc(name), set()).add(name)
    return {name: sorted(variants) for name, variants in sorted(forms.items()) if len(variants) > 1}
