"""Converts command-line arguments to files. An argument is a file, a folder, or a list of files and folders."""

import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from stages.dataset.reading.ids import picture_ids
from stages.dataset.reading.layouts import files_below
from stages.runtime.errors import StageError


class InputFile(NamedTuple):
    """A file and its id. `picture_ids` derives the id from the path below the given folder, or else from the name."""

    path: str
    id: str


def input_files(arguments: Iterable[str]) -> list[InputFile]:
    """Returns the files in the order of the arguments. `@FILE` and `-` (stdin) are lists with one name per line.

    The files of a folder are sorted by id; hidden files are left out. Two files with the same name
    from two folders get the same id. A file that does not exist is returned too.

    Raises StageError if a list or folder cannot be read.
    """
    paths: list[str] = []
    names_below: list[str] = []
    for name in read_names(arguments):
        for path, name_below in files_of(name):
            paths.append(path)
            names_below.append(name_below)
    return list(map(InputFile, paths, picture_ids(names_below)))


def read_names(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == "-":
            yield from split_lines(sys.stdin.buffer.read(), "-")
        elif argument.startswith("@"):
            try:
                yield from split_lines(Path(argument[1:]).read_bytes(), argument[1:])
            except (OSError, ValueError) as error:
                raise StageError(
                    f"cannot read the list {argument[1:]}: {error}: expected a text file with one name per line"
                ) from None
        elif argument:
            yield argument
        else:
            raise StageError("an empty name among the pictures: is a variable of the shell not set?")


def split_lines(data: bytes, name: str) -> Iterator[str]:
    """Returns the names in a list. File names are bytes, and only a line feed ends a name.

    Raises StageError if the list contains zero bytes.
    """
    if b"\0" in data:
        raise StageError(
            f"the list {name} contains zero bytes: expected UTF-8 text (not UTF-16) with one name per line"
        )
    return (os.fsdecode(line.removesuffix(b"\r")) for line in data.split(b"\n") if line.strip())


def files_of(name: str) -> Iterator[tuple[str, str]]:
    """Yields (path, path below the folder `name`) of each file in the folder.

    If `name` is not a folder, yields `name` and its last part.
    """
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
