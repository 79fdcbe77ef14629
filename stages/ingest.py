"""ingest: read a folder of pictures, decode and hash each one, and list which were rejected and why.

In:   ingest.path, in a layout that stages/dataset/reading/layouts.py describes
Out:  data/ingest/images.parquet  one row per picture, sorted by part and id: id, file, label, part, sha256, width,
                                  height (upright, px), format, mode, orientation, thumb (16 x 16 int8),
                                  group (the value in split.group_column, else "")
      data/ingest/files.parquet   sha256, file: the input of resize. It has no labels, so a new label resizes
                                  nothing.
      data/ingest/depth.json      depth: the two stored values that become black and white in pictures of more than
                                  8 bits, for `resize` and the model file; null: the full range of each file
      data/ingest/rejected.csv    file, reason
      data/ingest/sizes.png       heights, widths and class counts of the pictures, which help to choose a size
Recipe: looking at the data, as in lessons 1 and 2 of the fast.ai course. Rows are sorted, because the order in which a
        folder lists its files varies.
"""

import errno
import hashlib
import json
import os
import re
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pandas as pd
import PIL
from pydantic import BeforeValidator

from stages.dataset.reading.layouts import (
    LABEL_WITHOUT_PICTURE,
    Candidate,
    Layout,
    read_csv_layout,
    read_folders_layout,
)
from stages.runtime import receipt
from stages.runtime.code_version import code_version
from stages.runtime.errors import StageError, one_line
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Positive, Rate, Section, load
from stages.runtime.stage import run, track
from stages.runtime.threads import map_lots, threads
from stages.store.items import Items, ItemsParams, load_or_make, make_missing
from stages.vision.files import bit_depth, images, metadata, thumbnail

REJECTED_LIST = Path(".unfreeze/rejected.csv")
GroupColumn: Any = str | None


def check_depth(value: Any) -> Any:
    """Returns the value. Raises one ValueError for all three allowed types; pydantic would print one for each type."""
    numbers = value if isinstance(value, list) else [value]
    integers = all(type(number) is int for number in numbers)
    pair = isinstance(value, list) and integers and len(value) == 2 and 0 <= value[0] < value[1] < bit_depth.VALUES
    bits = type(value) is int and 8 <= value <= 16
    if not (pair or bits or value in ("full", "used")):
        raise ValueError(
            "it must be full, used, a number of bits from 8 to 16, or [low, high] with 0 <= low < high <= 65535"
        )
    return value


class IngestParams(Section):
    path: str
    layout: Literal["csv", "folders"]
    id_column: str
    label_column: str
    max_megapixels: Positive
    max_rejected_pct: Rate
    depth: Annotated[Literal["full", "used"] | int | list[int], BeforeValidator(check_depth)]


class Notes(NamedTuple):
    """Notes on pictures, by sha256.

    `values`: the range of the stored values, only for pictures of more than 8 bits. `unreadable`: the names of the
    metadata that cannot be read.
    """

    values: dict[str, bit_depth.Range]
    unreadable: dict[str, list[str]]


DVC_CACHE = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")  # target of DVC's links with `cache.type symlink`
# \r would end a row in the CSV files of split; escape sequences control a terminal.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def printable(name: str) -> str:
    """Returns the name with control characters and invalid UTF-8 replaced."""
    return CONTROL_CHARACTERS.sub("\ufffd", os.fsencode(name).decode(errors="replace"))


def check_file(root: Path, candidate: Candidate) -> tuple[str, str]:
    """Returns (sha256 of the file, ""), or ("", the reason why the file is rejected before decoding)."""
    if candidate.reason == LABEL_WITHOUT_PICTURE:
        return "", LABEL_WITHOUT_PICTURE
    path, reason = f"{root}/{candidate.file}", candidate.reason
    if CONTROL_CHARACTERS.search(candidate.file + candidate.label):
        reason = "control characters in its name or label"
    elif printable(candidate.file) != candidate.file:
        reason = "a name that is not UTF-8"
    try:
        if not reason:
            return sha256_of(path, os.O_NOFOLLOW), ""
    except OSError as error:
        if not os.path.islink(path):
            return "", error.strerror or str(error)
    if os.path.isdir(path):
        return "", "a link to a folder: not followed"
    if reason or not is_inside(root, Path(os.path.realpath(path))):
        return "", reason or "a link out of the folder"
    try:
        return sha256_of(path), ""
    except OSError as error:
        return "", error.strerror or str(error)


def sha256_of(path: str, flags: int = 0) -> str:
    """Returns the sha256 of a file.

    Makes half the system calls of Path.read_bytes: with 100,000 small files, system calls take most of the time.

    Raises OSError, also for a pipe, because reading a pipe would block for ever.
    """
    digest, file = hashlib.sha256(), os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        size = 0
        while block := os.read(file, 1 << 20):
            digest.update(block)
            size += len(block)
        if not size and not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
    finally:
        os.close(file)
    return digest.hexdigest()


def is_inside(root: Path, target: Path) -> bool:
    return target.is_relative_to(root.resolve()) or bool(DVC_CACHE.search(target.as_posix()))


def decode(path: Path, sha256: str, max_pixels: int) -> bytes:
    """Returns JSON with `facts` of the picture, its `thumb` and any `Notes`, or with the `reason` for its rejection.

    Raises StageError if the file changed or there is not enough memory.
    """
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StageError(f"{path} changed while ingest was reading: run it again when the folder no longer changes")
    try:
        facts, image, value_range, unreadable = images.examine(data, max_pixels)
        notes = {name: note for name, note in (("values", value_range), ("unreadable", unreadable)) if note}
        return json.dumps({"facts": facts, "thumb": thumbnail.thumbnail(image).hex()} | notes).encode()
    except MemoryError:
        raise StageError(f"no memory left to open {path}: lower ingest.max_megapixels or end other programs") from None
    except images.BadPictureError as error:
        return json.dumps({"reason": str(error)}).encode()


def read_layout(root: Path, params: IngestParams, group_column: str | None) -> Layout:
    if params.layout == "csv":
        return read_csv_layout(root, params.id_column, params.label_column, group_column)
    if group_column is not None:
        raise StageError(
            f"split.group_column is {group_column}, but only the csv layout has columns: set "
            "split.group_column to null, or ingest.layout to csv"
        )
    return read_folders_layout(root)


def ingest(
    root: Path, params: IngestParams, items: Items, group_column: str | None, notes: Notes | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Returns the tables (images, rejected). Prints remarks on the layout on stderr before it reads pictures.

    Adds to `notes` if given. Raises StageError if there is no folder, no picture or only one class, if too many files
    are rejected, or if labels cannot be read.
    """
    if not root.is_dir():
        raise StageError(f"no folder {root}: ingest.path must name the folder of the pictures")
    candidates, remarks = read_layout(root, params, group_column)
    for remark in remarks:
        print(one_line(f"ingest: {remark}"), file=sys.stderr)
    with threads() as pool:
        results = map_lots(pool, lambda candidate: check_file(root, candidate), candidates)
        checks = list(track(results, len(candidates), "files"))
        paths = {sha: root / candidate.file for candidate, (sha, _) in zip(candidates, checks, strict=True) if sha}

        def make(shas: Sequence[str]) -> Iterable[bytes]:
            return map_lots(pool, lambda sha: decode(paths[sha], sha, params.max_megapixels * 1_000_000), shas)

        make_missing(items, paths, make)
        decoded = dict(zip(paths, load_or_make(items, list(paths), make), strict=True))
    accepted: list[dict[str, Any]] = []
    rejected: list[dict[str, str]] = []
    for candidate, (sha, reason) in zip(candidates, checks, strict=True):
        result: dict[str, Any] = json.loads(decoded[sha]) if sha else {"reason": reason}
        if "reason" in result:
            rejected.append({"file": printable(candidate.file), "reason": printable(result["reason"])})
            continue
        row = {"id": candidate.id, "file": candidate.file, "label": candidate.label, "part": candidate.part}
        facts = images.Facts(*result["facts"])._asdict()
        if notes and "values" in result:
            notes.values[sha] = bit_depth.Range(*result["values"])
        if notes and "unreadable" in result:
            notes.unreadable[sha] = result["unreadable"]
        accepted.append(row | facts | {"thumb": bytes.fromhex(result["thumb"]), "group": candidate.group})
    check_rows(root, params, accepted, rejected)
    return (
        pd.DataFrame(accepted).sort_values(["part", "id"], ignore_index=True),
        pd.DataFrame(rejected, columns=["file", "reason"]).sort_values(["file", "reason"], ignore_index=True),
    )


def check_rows(
    root: Path, params: IngestParams, accepted: list[dict[str, Any]], rejected: list[dict[str, str]]
) -> None:
    classes = sorted({str(row["label"]) for row in accepted if row["part"] != "test"})
    if not classes:
        raise StageError(f"no labelled pictures in {root} ({len(rejected)} files rejected: {count_reasons(rejected)})")
    if len(classes) == 1:
        raise StageError(f"all pictures in {root} are labelled `{classes[0]}`: at least two classes are needed")
    pct = 100 * len(rejected) / (len(accepted) + len(rejected))
    if pct > params.max_rejected_pct:
        raise StageError(
            f"{len(rejected)} of {len(accepted) + len(rejected)} files in {root} rejected ({pct:.1f} %), more than "
            f"ingest.max_rejected_pct = {params.max_rejected_pct}: {count_reasons(rejected)}"
        )


def count_reasons(rejected: list[dict[str, str]]) -> str:
    """Returns the number of files per reason, as text.

    Also writes all rejected files to REJECTED_LIST, because a failed stage writes no outputs.
    """
    reasons = Counter(row["reason"] for row in rejected).most_common()
    example = {row["reason"]: row["file"] for row in reversed(rejected)}
    counts = [f"{count} x {reason} ({example[reason]})" for reason, count in reasons[:3]] + ["..."] * (len(reasons) > 3)
    with suppress(OSError):
        REJECTED_LIST.parent.mkdir(exist_ok=True)
        pd.DataFrame(rejected, columns=["file", "reason"]).to_csv(REJECTED_LIST, index=False)
        counts.append(f"all in {REJECTED_LIST}")
    return "; ".join(counts)


def remarks(notes: Notes, table: pd.DataFrame) -> Iterator[str]:
    """Yields one line if pictures have unreadable metadata."""
    if notes.unreadable:
        rows = table[table["sha256"].isin(notes.unreadable)]
        names = Counter(name for sha in rows["sha256"] for name in notes.unreadable[sha])
        counts = ", ".join(f"{name} of {count:,}" for name, count in names.most_common())
        yield (
            f"{len(rows):,} pictures have metadata that cannot be read ({counts}; {rows['file'].min()} is one): the "
            "pixels are used without the metadata"
        )


def plot_sizes(table: pd.DataFrame, path: Path) -> None:
    from stages.reporting.figures.plots import figures, shorten_names

    with figures(path, f"{len(table):,} pictures", 2) as (sizes, classes):
        for column, name in (("height", "rows"), ("width", "columns")):
            sizes.hist(table[column], bins=40, alpha=0.6, label=name)
        sizes.set(xlabel="px", ylabel="pictures")
        sizes.legend()
        counts = table.loc[table["part"] != "test", "label"].value_counts().sort_index().nlargest(20)
        classes.barh(shorten_names(counts.index[::-1]), counts[::-1])
        classes.set(xlabel="pictures", title="classes, most common first (20 at most)")


def main() -> None:
    params = load("ingest", IngestParams)
    key = {
        "max_megapixels": params.max_megapixels,
        "code": code_version(images, bit_depth, metadata, thumbnail, decode),
        "pillow": PIL.__version__,
    }
    items = Items("ingest", key, load("items", ItemsParams))
    group_column: str | None = load("split.group_column", GroupColumn)
    notes = Notes({}, {})
    table, rejected = ingest(Path(params.path), params, items, group_column, notes)
    items.close()
    depth = (params.depth[0], params.depth[1]) if isinstance(params.depth, list) else params.depth
    ranges = list(notes.values.values())
    window = bit_depth.window_of(depth, ranges)
    receipt.report_computed(len(table) + len(rejected), items.n_computed)
    files = table[["sha256", "file"]].sort_values(["sha256", "file"]).drop_duplicates("sha256")
    with outputs(stage_folder("ingest")) as folder:
        table.to_parquet(folder / "images.parquet", index=False)
        files.to_parquet(folder / "files.parquet", index=False)
        (folder / "depth.json").write_text(json.dumps({"depth": window}) + "\n", encoding="utf-8")
        rejected.to_csv(folder / "rejected.csv", index=False)
        plot_sizes(table, folder / "sizes.png")
    print(f"{len(table):,} pictures, {len(rejected)} rejected (see {stage_folder('ingest') / 'rejected.csv'})")
    if notes.unreadable:
        receipt.note(unreadable_metadata=int(table["sha256"].isin(notes.unreadable).sum()))
    if ranges:
        receipt.note(more_than_8_bits=len(ranges))
    for line in [*remarks(notes, table), *bit_depth.remarks(depth, window, ranges)]:
        print(line)


if __name__ == "__main__":
    run(main)
