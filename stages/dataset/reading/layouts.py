"""The two layouts that a folder of pictures may have: which files may be pictures, and what they are labelled.

csv:     labels.csv (with a header), train/<id><suffix>, optional test/<id><suffix>
folders: train/<class>/, valid/<class>/, optional test/
"""

import csv
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.runtime.errors import StageError


class Candidate(NamedTuple):
    """A file that may become a picture; `reason` is set where it is already known that it cannot."""

    id: str
    file: str
    label: str
    part: str
    reason: str = ""
    group: str = ""


class Label(NamedTuple):
    """A row of labels.csv."""

    id: str
    label: str
    group: str = ""


NO_PICTURE = "no picture for this label"


def files_below(root: Path, folder: str) -> list[str]:
    """Files below root/folder, and folders that are links, as paths below root, sorted by their parts; hidden files and
    folders left out."""
    found: list[str] = []
    for at, folders, names in os.walk(root / folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(f"{at}/{name}")]
        below = Path(at).relative_to(root).as_posix()
        found += [f"{below}/{name}" for name in [*names, *links] if not name.startswith(".")]
    return sorted(found, key=lambda file: file.split("/"))


def unreadable(error: OSError) -> None:
    """os.walk would leave the folder out in silence. One that is not there is optional, or missed elsewhere."""
    if not isinstance(error, FileNotFoundError):
        raise StageError(f"cannot list {error.filename}: {error.strerror}")


def composed(name: str) -> str:
    """Accents as one sign: what a Mac has packed names them apart, and labels.csv does not."""
    return unicodedata.normalize("NFC", name)


def id_below(file: str) -> str:
    """The path below train/, valid/ or test/ without its suffix: unlike a bare name it is unique."""
    return os.path.splitext(file.partition("/")[2])[0]


def read_csv_layout(root: Path, id_column: str, label_column: str, group_column: str | None) -> Iterator[Candidate]:
    """Pictures and labels are matched by id: the file's path below train/ or its name, with or without its suffix."""
    labelled = read_labels(root / "labels.csv", id_column, label_column, group_column)
    files = files_below(root, "train")
    found: dict[str, str] = {}
    for names in (
        lambda file: os.path.basename(id_below(file)),
        os.path.basename,
        id_below,
        lambda file: file.partition("/")[2],
    ):
        found |= {composed(names(file)): file for file in reversed(files)}
    rows: dict[str, list[Label]] = {}
    for row in labelled:
        rows.setdefault(found.get(composed(row.id), f"train/{row.id}"), []).append(row)
    there = set(files)
    for file in sorted(rows):
        label, group, reason = agreed(rows[file], group_column is not None)
        id_, reason = (id_below(file), reason) if file in there else (rows[file][0].id, NO_PICTURE)
        yield Candidate(id_, file, label, "train", reason, group)
    for file in files:
        if file not in rows:
            yield Candidate(id_below(file), file, "", "train", "no label for this picture")
    yield from read_test(root)


def agreed(rows: Sequence[Label], grouped: bool) -> tuple[str, str, str]:
    """(label, group, reason) of the rows that name one picture: what they contradict each other in is the reason."""
    labels, groups = sorted({row.label for row in rows}), sorted({row.group for row in rows})
    reason = ""
    if len(labels) > 1:
        reason = f"labelled {' and '.join(label or 'nothing' for label in labels)}"
    elif not labels[0]:
        reason = "empty label"
    elif len(groups) > 1:
        reason = f"in the groups {' and '.join(groups)}"
    elif grouped and not groups[0]:
        reason = "empty group"
    return labels[0], groups[0], reason


def read_labels(path: Path, id_column: str, label_column: str, group_column: str | None) -> list[Label]:
    """Each row of labels.csv, without blanks around its fields."""
    if not path.is_file():
        raise StageError(f"no {path}: the csv layout wants labels.csv beside train/; or set ingest.layout to folders")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, skipinitialspace=True) if any(row)] or [[]]
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 ({error}): save it as CSV UTF-8") from None
    except csv.Error as error:
        raise StageError(f"{path} cannot be read as CSV: {error}") from None
    for row in rows:
        if any(row[len(header) :]):  # empty ones come from a comma at the end of each row
            raise StageError(
                f"{path} has more fields in a row than in its header ({', '.join(header)}): {','.join(row)}"
            )
    columns = {"ingest.id_column": id_column, "ingest.label_column": label_column}
    columns |= {} if group_column is None else {"split.group_column": group_column}
    for key, column in columns.items():
        if column not in header:
            raise StageError(f"{path} has no column `{column}` ({key}); it has {', '.join(header)}")
    at = [header.index(column) for column in columns.values()]
    wanted = [[row[place].strip() if place < len(row) else "" for place in at] for row in rows]
    for field in (field for row in wanted for field in row):
        if "\n" in field or "\r" in field:  # csv reads on to the next quote, or to the end
            raise StageError(f"{path} has a line break in a field, so a quote was not closed: {field[:80]}")
    return [Label(*row) for row in wanted]


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
