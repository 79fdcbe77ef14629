"""What people's labels.csv holds: each row becomes a label, or is rejected with its reason, or all of it is refused."""

from pathlib import Path

import pandas as pd
import pytest

from stages.ingest import IngestParams, ingest
from stages.runtime.errors import StageError
from stages.store.items import Items, ItemsParams
from tests.conftest import draw_picture

IDS = ("a", "b", "c", "d")
PLAIN = "id,label,who\na,red,x\nb,red,x\nc,blue,y\nd,blue,z\n"
LABELS = {"a": "red", "b": "red", "c": "blue", "d": "blue"}


def edit(old: str, new: str) -> str:
    assert old in PLAIN
    return PLAIN.replace(old, new)


def look(
    folder: Path, content: str | bytes, group_column: str | None = None, max_rejected_pct: float = 60.0
) -> tuple[pd.DataFrame, dict[str, str]]:
    """(images, reasons by file) of four pictures with this labels.csv."""
    for number, id_ in enumerate(IDS):
        draw_picture(folder / f"train/{id_}.jpg", "red", number)
    (folder / "labels.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
    values = {
        "path": "", "layout": "csv", "id_column": "id", "label_column": "label", "max_megapixels": 1,
        "max_rejected_pct": max_rejected_pct, "depth": "used",
    }  # fmt: skip
    items = Items("ingest", {}, ItemsParams(max_gib=0))
    table, rejected = ingest(folder, IngestParams.model_validate(values), items, group_column)
    return table, dict(zip(rejected["file"], rejected["reason"], strict=True))


def changed(**labels: str | None) -> dict[str, str]:
    return {id_: label for id_, label in (LABELS | labels).items() if label is not None}


# name, labels.csv, labels by id, reasons by file
CASES: list[tuple[str, str | bytes, dict[str, str], dict[str, str]]] = [
    ("nothing wrong", PLAIN, LABELS, {}),
    ("a BOM, as Excel writes it", "\ufeff" + PLAIN, LABELS, {}),
    ("CRLF", PLAIN.replace("\n", "\r\n"), LABELS, {}),
    ("CR alone", PLAIN.replace("\n", "\r"), LABELS, {}),
    ("no line break at the end", PLAIN.rstrip(), LABELS, {}),
    ("blank lines", PLAIN.replace("\n", "\n\n") + "\n , ,\n", LABELS, {}),
    ("quotes", edit("a,red,x", '"a","red","x"'), LABELS, {}),
    ("quotes in a label", edit("a,red", 'a,"a ""red"" one"'), changed(a='a "red" one'), {}),
    ("a comma in a label", edit("a,red", 'a,"red, or so"'), changed(a="red, or so"), {}),
    ("an inch, not a quote", edit("a,red", 'a,5" disk'), changed(a='5" disk'), {}),
    ("blanks around a label", edit("a,red,x", "a , red ,x"), LABELS, {}),
    ("blanks around quotes", edit("a,red,x", 'a, "red" ,x'), LABELS, {}),
    ("a comma at the end of each row", PLAIN.replace("\n", ",\n").replace("who,", "who", 1), LABELS, {}),
    ("other columns, in another order", "who,label,id\nx,red,a\nx,red,b\ny,blue,c\nz,blue,d\n", LABELS, {}),
    ("blanks around a name in the header", PLAIN.replace("id,label,who", " id , label,who "), LABELS, {}),
    ("a column twice that nobody asks for", PLAIN.replace("id,label,who", "id,label,who,who"), LABELS, {}),
    ("a suffix at the id", edit("a,red", "a.jpg,red"), LABELS, {}),
    ("an id twice, same label", PLAIN + "a,red,x\n", LABELS, {}),
    ("an id twice, with and without suffix", PLAIN + "a.jpg,red,x\n", LABELS, {}),
    ("an id twice, other label", PLAIN + "a,blue,x\n", changed(a=None), {"train/a.jpg": "labelled blue and red"}),
    ("an id twice, once empty", PLAIN + "a,,x\n", changed(a=None), {"train/a.jpg": "labelled nothing and red"}),
    ("a label without a picture", PLAIN + "e,red,x\n", LABELS, {"train/e": "no picture for this label"}),
    ("a picture without a label", edit("a,red,x\n", ""), changed(a=None),
     {"train/a.jpg": "no label for this picture"}),
    ("an empty label", edit("a,red", "a,"), changed(a=None), {"train/a.jpg": "empty label"}),
    ("a label of blanks", edit("a,red", "a,  "), changed(a=None), {"train/a.jpg": "empty label"}),
    ("a row that ends early", edit("a,red,x", "a"), changed(a=None), {"train/a.jpg": "empty label"}),
    ("an empty id", PLAIN + ",red,x\n", LABELS, {"train/": "no picture for this label"}),
    ("an id that climbs out", PLAIN + "../../x,red,x\n", LABELS, {"train/../../x": "no picture for this label"}),
    ("an id that climbs out, with a suffix", PLAIN + "../outside.jpg,red,x\n", LABELS,
     {"train/../outside.jpg": "no picture for this label"}),
    ("an id that climbs far", PLAIN + "../../../../../../etc/passwd,red,x\n", LABELS,
     {"train/../../../../../../etc/passwd": "no picture for this label"}),
    ("an absolute id", PLAIN + "/etc/passwd,red,x\n", LABELS, {"train//etc/passwd": "no picture for this label"}),
    ("a contradiction that climbs out", PLAIN + "../../x,red,x\n../../x,blue,x\n", LABELS,
     {"train/../../x": "no picture for this label"}),
    ("a script", edit("a,red", "a,<script>alert(1)</script>"), changed(a="<script>alert(1)</script>"), {}),
    ("a formula", edit("a,red", "a,=1+1"), changed(a="=1+1"), {}),
    ("words that others take for nothing", edit("a,red", "a,NA").replace("b,red", "b,null"),
     changed(a="NA", b="null"), {}),
    ("numbers stay what was written", PLAIN.replace("red", "01").replace("blue", "1.0"),
     {"a": "01", "b": "01", "c": "1.0", "d": "1.0"}, {}),
    ("labels that differ in case are two", edit("a,red", "a,Red"), changed(a="Red"), {}),
    ("signs of all the world", edit("a,red", "a,\"rot, 赤 🟥\""), changed(a="rot, 赤 🟥"), {}),
    ("a class with one picture", edit("b,red", "b,blue"), changed(b="blue"), {}),
]  # fmt: skip


@pytest.mark.parametrize(("content", "labels", "reasons"), [case[1:] for case in CASES], ids=[c[0] for c in CASES])
def test_labels(tmp_path: Path, content: str | bytes, labels: dict[str, str], reasons: dict[str, str]) -> None:
    draw_picture(tmp_path / "x.jpg", "red", 9)  # what ids that climb would find
    draw_picture(tmp_path / "p/outside.jpg", "red", 9)
    table, rejected = look(tmp_path / "p", content)
    assert dict(zip(table["id"], table["label"], strict=True)) == labels
    assert rejected == reasons


def test_a_folder_named_like_a_picture_is_none(tmp_path: Path) -> None:
    (tmp_path / "train/e.jpg").mkdir(parents=True)
    table, rejected = look(tmp_path, PLAIN + "e,red,x\n")
    assert (len(table), rejected) == (4, {"train/e": "no picture for this label"})


@pytest.mark.parametrize(("file", "id_"), [("e\u0301", "\u00e9"), ("\u00e9", "e\u0301")])
def test_an_accent_may_be_a_sign_of_its_own_as_on_a_mac_or_none(tmp_path: Path, file: str, id_: str) -> None:
    draw_picture(tmp_path / f"train/{file}.jpg", "red", 5)
    table, rejected = look(tmp_path, PLAIN + f"{id_},red,x\n")
    assert table["file"].tolist()[-1] == f"train/{file}.jpg"
    assert rejected == {}


CAFE = ("caf\u00e9", "cafe\u0301")  # composed and not


def test_labels_and_groups_in_two_unicode_forms_are_one_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = f"id,label,gr\u00f6up\na,{CAFE[0]},{CAFE[0]}\nb,{CAFE[1]},{CAFE[1]}\n"
    content += f"b,{CAFE[0]},{CAFE[0]}\nc,blue,x\nd,blue,z\n"
    table, rejected = look(tmp_path, content, group_column="gro\u0308up")
    assert rejected == {}
    assert table["label"].tolist() == [CAFE[0], CAFE[0], "blue", "blue"]
    assert table["group"].tolist() == [CAFE[0], CAFE[0], "x", "z"]
    assert capsys.readouterr().err == "".join(
        f"ingest: {kind} is written in 2 Unicode forms, which count as one, `{CAFE[0]}`: 'cafe\\u0301', 'caf\\xe9'\n"
        for kind in ("a class", "a group")
    )


@pytest.mark.parametrize(
    ("files", "ids", "message"),
    [
        (
            ["a/7.jpg", "b/7.jpg"],
            ["7"],
            "the id `7` fits train/a/7.jpg and train/b/7.jpg: write the path below train/ ",
        ),
        (["a/7.jpg", "b/7.jpg"], ["7.jpg"], "the id `7.jpg` fits train/a/7.jpg and train/b/7.jpg: write the path "),
        (["7.jpg", "7.png"], ["7"], "the id `7` fits train/7.jpg and train/7.png: .* with its suffix"),
        (["a/7.jpg", "a/7.png"], ["a/7"], "the id `a/7` fits train/a/7.jpg and train/a/7.png"),
        (["a/7.jpg", "b/7.png"], ["7"], "the id `7` fits train/a/7.jpg and train/b/7.png"),
        (["a/7.jpg", "b/7.jpg", "c/7.jpg"], ["7"], "fits train/a/7.jpg and train/b/7.jpg and train/c/7.jpg: write"),
        (["a/7.dat", "b/7.txt"], ["7"], "the id `7` fits train/a/7.dat and train/b/7.txt"),
        (
            [f"{folder}/{n}.jpg" for folder in "efgh" for n in (7, 8)],
            ["8", "7"],
            "2 ids fit more than one file, as `8` fits train/e/8.jpg and train/f/8.jpg and train/g/8.jpg and others: ",
        ),
        (
            [f"{name}.jpg" for name in CAFE],
            [CAFE[1]],
            r"which differ in their Unicode form alone \(\['cafe\\u0301.jpg', 'caf\\xe9.jpg'\]\): rename one",
        ),
    ],
)
def test_an_id_that_fits_several_files(tmp_path: Path, files: list[str], ids: list[str], message: str) -> None:
    for file in files:
        (tmp_path / "train" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "train" / file).write_bytes(b"")
    with pytest.raises(StageError, match=message):
        look(tmp_path, PLAIN + "".join(f"{id_},red,x\n" for id_ in ids))


@pytest.mark.parametrize(
    ("files", "id_", "file"),
    [
        (["7.jpg", "a/7.jpg"], "7", "7.jpg"),
        (["7.jpg", "a/7.jpg"], "7.jpg", "7.jpg"),
        (["7.jpg", "a/7.jpg"], "a/7", "a/7.jpg"),
        (["7.jpg", "7.txt", "7.json"], "7", "7.jpg"),
        (["a/7.jpg", "a/7.txt", "b/7.txt"], "7", "a/7.jpg"),
        (["7.jpg", "7.png"], "7.png", "7.png"),
        (["7.jpg", "7.JPEG"], "7.JPEG", "7.JPEG"),
        (["7", "7.jpg"], "7", "7"),
        (["7.dat"], "7", "7.dat"),
        (["a/7.jpg", "7.jpg.png"], "7.jpg", "7.jpg.png"),
        (["a/7.jpg", "b/7.jpg.png"], "7.jpg", "a/7.jpg"),
    ],
)
def test_what_an_id_means(tmp_path: Path, files: list[str], id_: str, file: str) -> None:
    for number, name in enumerate(files):
        (tmp_path / "x.jpg").unlink(missing_ok=True)
        draw_picture(tmp_path / "x.jpg", "red", 50 + number)
        (tmp_path / "train" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x.jpg").rename(tmp_path / "train" / name)
    table, rejected = look(tmp_path, PLAIN + f"{id_},new,x\n")
    assert table["file"][table["label"] == "new"].tolist() == [f"train/{file}"]
    assert rejected == {f"train/{name}": "no label for this picture" for name in files if name != file}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no column `id` \\(ingest.id_column\\)"),
        ("id\na\n", "has no column `label` \\(ingest.label_column\\); it has id$"),
        (PLAIN.replace(",", ";"), "has no column `id` .* it has id;label;who"),
        ("a,red\nb,blue\n", "has no column `id`"),
        (
            "id,label,label\na,red,blue\n",
            r"has 2 columns `label` \(ingest.label_column\) in its header \(id, label, label\): rename all but one",
        ),
        ("id, id ,label\na,b,red\n", r"has 2 columns `id` \(ingest.id_column\) in its header \(id, id, label\)"),
        (
            "id,label\n",
            r"no labelled pictures .*4 files rejected: 4 x no label for this picture \(train/a.jpg\); all in",
        ),
        (PLAIN.replace("blue", "red"), "labelled `red`: at least two classes are needed"),
        (edit("a,red", 'a,"red'), "has a line break in a field, so a quote was not closed: red,x"),
        (edit("a,red,x", "a,red,x,y"), r"more fields in a row than in its header \(id, label, who\): a,red,x,y"),
        (edit("a,red", f"a,{'r' * 200_000}"), "labels.csv cannot be read as CSV: field larger than field limit"),
        (PLAIN.encode("utf-16"), "is not UTF-8 .* save it as CSV UTF-8"),
        (edit("red", "r\u00f6t").encode("latin-1"), "is not UTF-8 .* save it as CSV UTF-8"),
    ],
)
def test_labels_that_nobody_can_read(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(StageError, match=message):
        look(tmp_path, content)


def test_a_share_of_rejected_rows_decides(tmp_path: Path) -> None:
    content = PLAIN + "e,red,x\n"
    assert len(look(tmp_path, content, max_rejected_pct=20.0)[0]) == 4
    message = r"1 of 5 files .* rejected \(20.0 %\), more than .* 19.9: 1 x .* for this label \(train/e\); all in "
    with pytest.raises(StageError, match=message):
        look(tmp_path, content, max_rejected_pct=19.9)


@pytest.mark.parametrize(
    ("content", "groups", "reasons"),
    [
        (PLAIN, {"a": "x", "b": "x", "c": "y", "d": "z"}, {}),
        (PLAIN + "a,red,x\n", {"a": "x", "b": "x", "c": "y", "d": "z"}, {}),
        (PLAIN + "a,red,y\n", {"b": "x", "c": "y", "d": "z"}, {"train/a.jpg": "in the groups x and y"}),
        (edit("a,red,x", "a,red, "), {"b": "x", "c": "y", "d": "z"}, {"train/a.jpg": "empty group"}),
    ],
)
def test_groups(tmp_path: Path, content: str, groups: dict[str, str], reasons: dict[str, str]) -> None:
    table, rejected = look(tmp_path, content, group_column="who")
    assert dict(zip(table["id"], table["group"], strict=True)) == groups
    assert rejected == reasons


def test_no_such_group_column(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"has no column `patient` \(split.group_column\); it has id, label, who"):
        look(tmp_path, PLAIN, group_column="patient")
