"""Which files are meant: files, folders, and lists of both."""

import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.dataset.reading.layouts import files_below
from stages.runtime.errors import StageError


class Listed(NamedTuple):
    """A file, and what Kaggle calls it: its path below the folder that was named (else its name) without suffix."""

    path: str
    id: str


def listed(arguments: Iterable[str]) -> list[Listed]:
    """As they stand; what lies in a folder by id, hidden files left out. `@FILE` and `-` (stdin) hold a name a line.

    Where several have one id they keep their suffixes, as in ingest. Raises StageError: a list or folder that cannot be
    read. A file that does not exist is listed like any other.
    """
    found = [one for name in names(arguments) for one in below(name)]
    times = Counter(one.id for one in found)
    return [one if times[one.id] == 1 else Listed(one.path, one.id + Path(one.path).suffix) for one in found]


def names(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from lines(sys.stdin.buffer.read(), "-")
        elif argument.startswith("@"):
            try:
                yield from lines(Path(argument[1:]).read_bytes(), argument[1:])
            except (OSError, ValueError) as error:
                raise StageError(f"cannot read the list {argument[1:]}: {error}: a text file, a name a line") from None
        elif argument:
            yield argument
        else:
            raise StageError("an empty name among the pictures: is a variable of the shell not set?")


def lines(data: bytes, name: str) -> Iterator[str]:
    """File names are bytes, and only a line feed ends one. Raises StageError: this is no text of that kind."""
    if b"\0" in data:
        raise StageError(f"the list {name} holds zero bytes: expected UTF-8 text (not UTF-16), a name a line")
    return (os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n") if line.strip())


def below(name: str) -> Iterator[Listed]:
    try:
        is_folder = Path(name).is_dir()
    except OSError:  # a name too long for one
        is_folder = False
    if not is_folder:
        yield Listed(name, Path(name).stem)
        return
    files = files_below(Path(name), ".")  # text, not Paths: of a million pictures the names are in memory
    for id_, file in sorted((Path(file).with_suffix("").as_posix(), file) for file in files):
        yield Listed(str(Path(name, file)), id_)
