"""Reads the two layouts that a folder of pictures may have: which files may be pictures, and their labels.

csv:     labels.csv (with a header), train/<id><suffix>, optional test/<id><suffix>
folders: train/<class>/, valid/<class>/, optional test/
"""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stages.dataset.reading.ids import matcher, picture_ids, to_nfc, unicode_variants
from stages.runtime.errors import StageError


class Candidate(NamedTuple):
    """A file that may become a picture; `reason` is set if it is already known to be rejected."""

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


class Layout(NamedTuple):
    """The contents of a folder of pictures; `remarks` are warnings that need no action."""

    candidates: list[Candidate]
    remarks: list[str]


LABEL_WITHOUT_PICTURE = "no picture for this label"


def files_below(root: Path, folder: str) -> list[str]:
    """Returns the files below root/folder, and links to folders, as paths relative to root, sorted by their parts.

    Hidden files and folders are left out.
    """
    files: list[str] = []
    for path, folders, names in os.walk(root / folder, onerror=raise_unless_missing):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(f"{path}/{name}")]
        below = Path(path).relative_to(root).as_posix()
        files += [f"{below}/{name}" for name in [*names, *links] if not name.startswith(".")]
    return sorted(files, key=lambda file: file.split("/"))


def raise_unless_missing(error: OSError) -> None:
    """Raises StageError for a folder that cannot be listed, which os.walk would skip silently.

    A missing folder is ignored: either it is optional, or the caller reports it.
    """
    if not isinstance(error, FileNotFoundError):
        raise StageError(f"cannot list {error.filename}: {error.strerror}")


def read_csv_layout(root: Path, id_column: str, label_column: str, group_column: str | None) -> Layout:
    """Reads labels.csv, train/ and test/. Labels are matched to pictures by id: see `matcher` in ids.py.

    Raises StageError.
    """
    path = root / "labels.csv"
    csv_rows = read_labels(path, id_column, label_column, group_column)
    labelled = [Label(*map(to_nfc, row)) for row in csv_rows]
    files = files_below(root, "train")
    files_of = matcher([file.partition("/")[2] for file in files])
    rows: dict[str, list[Label]] = {}
    ambiguous: dict[str, list[str]] = {}
    for row in labelled:
        matches = files_of(row.id)
        if len(matches) > 1:
            ambiguous[row.id] = matches
        rows.setdefault(f"train/{matches[0] if matches else row.id}", []).append(row)
    if ambiguous:
        raise StageError(f"{path}: {ambiguous_ids_message(ambiguous)}")
    candidates = []
    ids = dict(zip(files, picture_ids([file.partition("/")[2] for file in files]), strict=True))
    for file in sorted(rows):
        label, group, reason = merge_rows(rows[file], group_column is not None)
        id_, reason = (ids[file], reason) if file in ids else (rows[file][0].id, LABEL_WITHOUT_PICTURE)
        candidates.append(Candidate(id_, file, label, "train", reason, group))
    candidates += [
        Candidate(ids[file], file, "", "train", "no label for this picture") for file in files if file not in rows
    ]
    kinds = {"an id": [row.id for row in csv_rows], "a class": [row.label for row in csv_rows]}
    kinds |= {"a group": [row.group for row in csv_rows]}
    remarks = [remark for kind, names in kinds.items() for remark in unicode_variant_remarks(kind, names)]
    return Layout(candidates + read_part(root, "test"), remarks)


def ambiguous_ids_message(ambiguous: dict[str, list[str]]) -> str:
    id_, files = next(iter(ambiguous.items()))
    names = " and ".join(f"train/{file}" for file in files[:3]) + (" and others" if len(files) > 3 else "")
    subject = f"{len(ambiguous):,} ids fit more than one file, as" if len(ambiguous) > 1 else "the id"
    if len({to_nfc(file) for file in files}) == 1:
        return f"{subject} `{id_}` fits {names}, which differ in their Unicode form alone ({files!a}): rename one"
    return f"{subject} `{id_}` fits {names}: write the path below train/ with its suffix"


def unicode_variant_remarks(kind: str, names: Iterable[str]) -> Iterator[str]:
    for name, forms in unicode_variants(names).items():
        yield f"{kind} is written in {len(forms)} Unicode forms, which count as one, `{name}`: {ascii(forms)[1:-1]}"


def merge_rows(rows: Sequence[Label], needs_group: bool) -> tuple[str, str, str]:
    """Returns (label, group, reason) of all rows of one picture. `reason` is set if the rows contradict each other or a
    field is empty."""
    labels, groups = sorted({row.label for row in rows}), sorted({row.group for row in rows})
    reason = ""
    if len(labels) > 1:
        reason = f"labelled {' and '.join(label or 'nothing' for label in labels)}"
    elif not labels[0]:
        reason = "empty label"
    elif len(groups) > 1:
        reason = f"in the groups {' and '.join(groups)}"
    elif needs_group and not groups[0]:
        reason = "empty group"
    return labels[0], groups[0], reason


def read_labels(path: Path, id_column: str, label_column: str, group_column: str | None) -> list[Label]:
    """Returns the rows of labels.csv with spaces stripped from their fields. Raises StageError."""
    if not path.is_file():
        raise StageError(
            f"no {path}: the csv layout needs labels.csv beside train/; add it or set ingest.layout to folders"
        )
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = [row for row in csv.reader(file, skipinitialspace=True) if any(row)] or [[]]
    except UnicodeDecodeError as error:
        raise StageError(f"{path} is not UTF-8 ({error}): save it as CSV UTF-8") from None
    except csv.Error as error:
        raise StageError(f"{path} cannot be read as CSV: {error}") from None
    for row in rows:
        if any(row[len(header) :]):  # empty fields come from a comma at the end of each row
            raise StageError(
                f"{path} has more fields in a row than in its header ({', '.join(header)}): {','.join(row)}"
            )
    columns = {"ingest.id_column": id_column, "ingest.label_column": label_column}
    columns |= {} if group_column is None else {"split.group_column": group_column}
    positions = [column_of(path, header, key, column) for key, column in columns.items()]
    fields_by_row = [[row[i].strip() if i < len(row) else "" for i in positions] for row in rows]
    for field in (field for row in fields_by_row for field in row):
        if "\n" in field or "\r" in field:  # csv reads up to the next quote, or to the end of the file
            raise StageError(f"{path} has a line break in a field, so a quote was not closed: {field[:80]}")
    return [Label(*row) for row in fields_by_row]


def column_of(path: Path, header: Sequence[str], key: str, column: str) -> int:
    """Returns the position of the column that the param `key` names.

    Raises StageError if there is no such column, or more than one.
    """
    names = [to_nfc(name.strip()) for name in header]
    positions = [position for position, name in enumerate(names) if name == to_nfc(column.strip())]
    if not positions:
        raise StageError(f"{path} has no column `{column}` ({key}); it has {', '.join(names)}")
    if len(positions) > 1:
        message = f"{path} has {len(positions)} columns `{column}` ({key}) in its header ({', '.join(names)})"
        raise StageError(f"{message}: rename all but one")
    return positions[0]


def read_folders_layout(root: Path) -> Layout:
    """Reads train/<class>/, valid/<class>/ and test/; the name of a folder is the class of its pictures.

    Raises StageError.
    """
    for part in ("train", "valid"):
        if not (root / part).is_dir():
            raise StageError(f"no {root / part}: the folders layout needs train/<class>/ and valid/<class>/")
    labelled = [candidate for part in ("train", "valid") for candidate in read_part(root, part, labelled=True)]
    folders = {candidate.file.rpartition("/")[0] for candidate in labelled}
    remarks = list(unicode_variant_remarks("a class", (folder.split("/")[1] for folder in folders if "/" in folder)))
    if nested := sorted(folder for folder in folders if folder.count("/") > 1):
        outer = "/".join(nested[0].split("/")[:2])
        remarks.append(
            f"{len(nested):,} folders lie in class folders, as {nested[0]}: their pictures are labelled with the outer "
            f"folder, `{outer.split('/')[1]}`; if the inner folders are the classes, move them up to "
            f"{outer.split('/')[0]}/"
        )
    return Layout(labelled + read_part(root, "test"), remarks)


def read_part(root: Path, part: str, labelled: bool = False) -> list[Candidate]:
    """Returns the files below `part`; if `labelled`, the name of a file's folder is its label."""
    files = files_below(root, part)
    ids = picture_ids([file.partition("/")[2] for file in files])
    counts = Counter(ids)
    candidates = []
    for file, id_ in zip(files, ids, strict=True):
        label = to_nfc(file.split("/")[1]) if labelled and file.count("/") > 1 else ""
        reason = "not in a class folder" if labelled and not label else ""
        if counts[id_] > 1:
            reason = "another name differs from this in its Unicode form alone: rename one"
        candidates.append(Candidate(id_, file, label, part, reason))
    return candidates
