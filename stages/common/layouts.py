"""The two layouts that a folder of pictures may have: which files may be pictures, and what they are labelled.

csv:     labels.csv (with a header), train/<id><suffix>, optional test/<id><suffix>
folders: train/<class>/, valid/<class>/, optional test/
"""

import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from stages.common.stage import StageError


class Candidate(NamedTuple):
    """A file that may become a picture; `reason` is set where it is already known that it cannot."""

    id: str
    file: str
    label: str
    part: str
    reason: str = ""


NO_PICTURE = "no picture for this label"


def files_below(root: Path, folder: str) -> list[str]:
    """Files below root/folder, and folders that are links, as paths below root, sorted by their parts; hidden files and
    folders left out."""
    found: list[str] = []
    for at, folders, names in os.walk(root / folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(f"{at}/{name}")]
        below = Path(at).relative_to(root).as_posix()
        found += [f"{below}/{name}" for name in [*names, *links] if not name.startswith(".")]
    return sorted(found, key=lambda file: file.split("/"))


def id_below(file: str) -> str:
    """The path below train/, valid/ or test/ without its suffix: unlike a bare name it is unique."""
    return os.path.splitext(file.partition("/")[2])[0]


def read_csv_layout(root: Path, id_column: str, label_column: str) -> Iterator[Candidate]:
    """Pictures and labels are matched by id: the file's path below train/ or its name, with or without its suffix."""
    labelled, files = read_labels(root / "labels.csv", id_column, label_column), files_below(root, "train")
    found: dict[str, str] = {}
    for names in (
        lambda file: os.path.basename(id_below(file)),
        os.path.basename,
        id_below,
        lambda file: file.partition("/")[2],
    ):
        found |= {names(file): file for file in reversed(files)}
    rows: dict[str, list[tuple[str, str]]] = {}
    for id_, label in labelled:
        rows.setdefault(found.get(id_, f"train/{id_}"), []).append((id_, label))
    there = set(files)
    for file in sorted(rows):
        labels, id_ = sorted({label for _, label in rows[file]}), rows[file][0][0]
        reason = "" if file in there else NO_PICTURE
        if len(labels) > 1:
            reason = f"labelled {' and '.join(labels)}"
        elif not labels[0]:
            reason = "empty label"
        yield Candidate(id_below(file) if file in there else id_, file, labels[0], "train", reason)
    for file in files:
        if file not in rows:
            yield Candidate(id_below(file), file, "", "train", "no label for this picture")
    yield from read_test(root)


def read_labels(path: Path, id_column: str, label_column: str) -> list[tuple[str, str]]:
    """(id, label) of each row of labels.csv, without blanks around them."""
    if not path.is_file():
        raise StageError(f"no {path}: the csv layout wants labels.csv beside train/; or set ingest.layout to folders")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, skipinitialspace=True) if any(row)] or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise StageError(f"{path} cannot be read as CSV: {error}") from None
    for row in rows:
        if any(row[len(header) :]):  # empty ones come from a comma at the end of each row
            raise StageError(
                f"{path} has more fields in a row than in its header ({', '.join(header)}): {','.join(row)}"
            )
    for key, column in (("id_column", id_column), ("label_column", label_column)):
        if column not in header:
            raise StageError(f"{path} has no column `{column}` (ingest.{key}); it has {', '.join(header)}")
    whole = (row + [""] * len(header) for row in rows)
    id_at, label_at = header.index(id_column), header.index(label_column)
    return [(row[id_at].strip(), row[label_at].strip()) for row in whole]


def read_folders_layout(root: Path) -> Iterator[Candidate]:
    """The folder names the class; train and valid are given."""
    for part in ("train", "valid"):
        if not (root / part).is_dir():
            raise StageError(f"no {root / part}: the folders layout wants train/<class>/ and valid/<class>/")
        for file in files_below(root, part):
            _, label, *rest = file.split("/")
            label, reason = (label, "") if rest else ("", "not in a class folder")
            yield Candidate(id_below(file), file, label, part, reason)
    yield from read_test(root)


def read_test(root: Path) -> Iterator[Candidate]:
    for file in files_below(root, "test"):
        yield Candidate(id_below(file), file, "", "test")
