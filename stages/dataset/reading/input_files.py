"""Which files are meant: files, folders, and lists of both."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.dataset.reading.ids import picture_ids
from stages.dataset.reading.layouts import files_below
from stages.runtime.errors import StageError


class Listed(NamedTuple):
    """A file, and its id by the rule of `picture_ids`: below the folder that was named, else by its name."""

    path: str
    id: str


def listed(arguments: Iterable[str]) -> list[Listed]:
    """As they stand; what lies in a folder by id, hidden files left out. `@FILE` and `-` (stdin) hold a name a line.

    Two files of one name from two folders have one id. Raises StageError: a list or folder that cannot be read. A file
    that does not exist is listed like any other.
    """
    paths: list[str] = []
    names_below: list[str] = []
    for name in names(arguments):
        for path, name_below in below(name):
            paths.append(path)
            names_below.append(name_below)
    return list(map(Listed, paths, picture_ids(names_below)))


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


def below(name: str) -> Iterator[tuple[str, str]]:
    """(path, path below the folder `name`) of the files in it, or `name` and its last part where it is none."""
    try:
        is_folder = Path(name).is_dir()
    except OSError:  # a name too long for one
        is_folder = False
    if not is_folder:
        yield name, Path(name).name
        return
    files = files_below(Path(name), ".")  # text, not Paths: of a million pictures the names are in memory
    for _, file in sorted((Path(file).with_suffix("").as_posix(), Path(file).as_posix()) for file in files):
        yield str(Path(name, file)), file
