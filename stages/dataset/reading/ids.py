"""The id of a picture, and which pictures an id may mean: one rule for labels.csv, all outputs and stages.predict.

An id is the file's path below train/, valid/, test/ or the folder that predict was given, without its suffix and in
Unicode's composed form (NFC), as most systems but macOS write it. Where several pictures would have one id, each keeps
its suffix.
"""

import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

SUFFIXES = frozenset(
    [".apng", ".avif", ".avifs", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm"]
    + [".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"]
)


def composed(name: str) -> str:
    """`name` in the Unicode form in which names and labels are compared."""
    return unicodedata.normalize("NFC", name)


def has_picture_suffix(file: str) -> bool:
    return os.path.splitext(file)[1].lower() in SUFFIXES


def without_suffix(file: str) -> str:
    return os.path.splitext(file)[0]


def picture_ids(paths: Sequence[str]) -> list[str]:
    """An id for each of a folder's files, `paths` being below that folder.

    Unique where the composed paths are. Names alone decide, so that a broken picture renames no other. A file of
    another kind (1.txt beside 1.jpg) keeps its suffix and leaves the picture its id.
    """
    names = [composed(path) for path in paths]
    taken = set(names)
    pictures = Counter(without_suffix(name) for name in names if has_picture_suffix(name))
    others = Counter(without_suffix(name) for name in names if not has_picture_suffix(name))

    def id_of(name: str) -> str:
        bare = without_suffix(name)
        rivals = pictures[bare] if has_picture_suffix(name) else pictures[bare] + others[bare]
        return bare if rivals == 1 and bare not in taken else name

    return [id_of(name) for name in names]


def matcher(paths: Sequence[str]) -> Callable[[str], list[str]]:
    """A function from an id, composed, to those of `paths` that it may mean: none, one or several.

    An id is a path with its suffix, a path without it, a name with its suffix or a name without it: the first of these
    that fits any file decides. Without a suffix files of other kinds come after pictures.
    """
    pictures, others = [p for p in paths if has_picture_suffix(p)], [p for p in paths if not has_picture_suffix(p)]
    only: dict[str, str] = {}
    several: dict[str, list[str]] = {}

    def add(files: Iterable[str], name_of: Callable[[str], str]) -> None:
        """Names that come later replace those before."""
        new: dict[str, str] = {}
        shared: dict[str, list[str]] = {}
        for file in files:
            name = composed(name_of(file))
            if name in new:
                shared.setdefault(name, [new[name]]).append(file)
            new.setdefault(name, file)
        for name in new.keys() & several.keys():
            del several[name]
        only.update(new)
        several.update(shared)

    for files in (others, pictures):
        add(files, lambda file: without_suffix(os.path.basename(file)))
    add(paths, os.path.basename)
    for files in (others, pictures):
        add(files, without_suffix)
    add(paths, str)

    def fitting(id_: str) -> list[str]:
        return several[id_] if id_ in several else [only[id_]] if id_ in only else []

    return fitting


def unicode_twins(names: Iterable[str]) -> dict[str, list[str]]:
    """Names that differ in their Unicode form alone, sorted, by their composed form."""
    forms: dict[str, set[str]] = {}
    for name in names:
        if not name.isascii():
            forms.setdefault(composed(name), set()).add(name)
    return {name: sorted(found) for name, found in sorted(forms.items()) if len(found) > 1}
