"""Command-line arguments to files: an argument is a file, a folder, or a list of both."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.dataset.reading.ids import picture_ids
from stages.dataset.reading.layouts import files_below
from stages.runtime.errors import StageError


class InputFile(NamedTuple):
    """A file and its id by the rule of `picture_ids`, from its path below the given folder, else from its name."""

    path: str
    id: str


def input_files(arguments: Iterable[str]) -> list[InputFile]:
    """Files in the order of the arguments; those of a folder sorted by id, without hidden ones. `@FILE` and `-` (stdin)
    are lists with a name a line.

    Two files with the same name from two folders get the same id. A file that does not exist is returned too. Raises
    StageError if a list or folder cannot be read.
    """
    paths: list[str] = []
    names_below: list[str] = []
    for name in names(arguments):
        for path, name_below in below(name):
            paths.append(path)
            names_below.append(name_below)
    return list(map(InputFile, paths, picture_ids(names_below)))


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
    """The names in a list. File names are bytes, and only a line feed ends a name. Raises StageError for zero bytes."""
    if b"\0" in data:
        raise StageError(f"the list {name} holds zero bytes: expected UTF-8 text (not UTF-16), a name a line")
    return (os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n") if line.strip())


def below(name: str) -> Iterator[tuple[str, str]]:
    """(path, path below the folder `name`) of the files in it, or `name` and its last part if it is no folder."""
    try:
        is_folder = Path(name).is_dir()
    except OSError:  # the name is too long
        is_folder = False
    if not is_folder:
        yield name, Path(name).name
        return
    files = files_below(Path(name), ".")  # strings need less memory than Paths, with a million pictures
    for _, file in sorted((Path(file).with_suffix("").as_posix(), Path(file).as_posix()) for file in files):
        yield str(Path(name, file)), file
