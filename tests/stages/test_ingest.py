"""Ingest: two layouts, and every file that is not used is named with its reason."""

import os
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from stages.dataset.reading.input_files import input_files
from stages.ingest import IngestParams, ingest
from stages.runtime.errors import StageError
from stages.store.items import Items, ItemsParams
from tests.conftest import CLASSES, draw_picture, draw_pictures

NO_ITEMS = Items("ingest", {}, ItemsParams(max_gib=0))


def params(**changes: object) -> IngestParams:
    values = {
        "path": "", "layout": "csv", "id_column": "id", "label_column": "label", "max_megapixels": 10,
        "max_rejected_pct": 60.0, "depth": "used",
    }  # fmt: skip
    return IngestParams.model_validate(values | changes)


def reasons(rejected: pd.DataFrame) -> dict[str, str]:
    return dict(zip(rejected["file"], rejected["reason"], strict=True))


def test_csv_layout(pictures: Path) -> None:
    table, rejected = ingest(pictures, params(), NO_ITEMS, None)
    assert rejected.empty
    assert table["part"].value_counts().to_dict() == {"train": 36, "test": 4}
    assert table["id"].tolist() == sorted(table["id"][:4]) + sorted(table["id"][4:])
    red = table[table["id"] == "red03"].iloc[0]
    assert (red["file"], red["label"], red["format"], red["mode"], red["orientation"]) == (
        "train/red03.jpg", "red", "JPEG", "RGB", 1,
    )  # fmt: skip
    assert table.loc[table["id"] == "blue00", "mode"].item() == "L"


def test_folders_layout(tmp_path: Path) -> None:
    for number, label in enumerate(CLASSES * 2):
        draw_picture(tmp_path / ("train" if number < 3 else "valid") / label / f"{number}.png", label, number)
    draw_picture(tmp_path / "test" / "7.jpg", "red", 7)
    draw_picture(tmp_path / "train" / "loose.jpg", "red", 8)
    table, rejected = ingest(tmp_path, params(layout="folders"), NO_ITEMS, None)
    assert table["part"].tolist() == ["test", *["train"] * 3, *["valid"] * 3]
    assert table["id"].tolist() == ["7", "blue/0", "green/1", "red/2", "blue/3", "green/4", "red/5"]
    assert reasons(rejected) == {"train/loose.jpg": "not in a class folder"}


def test_every_rejected_file_has_its_reason(pictures: Path) -> None:
    (pictures / "train" / "green01.jpg").write_bytes(b"<html>")
    (pictures / "train" / "green02.jpg").write_bytes(b"")
    (pictures / "train" / "green03.jpg").write_bytes((pictures / "train" / "red03.jpg").read_bytes()[:-60])
    (pictures / "train" / "green04.jpg").unlink()
    (pictures / "train" / "green05.jpg").rename(pictures / "outside.jpg")
    (pictures / "train" / "green05.jpg").symlink_to(pictures.parent / "elsewhere.jpg")
    (pictures.parent / "elsewhere.jpg").write_bytes((pictures / "outside.jpg").read_bytes())
    draw_picture(pictures / "train" / "extra.jpg", "red", 1)
    labels = pictures / "labels.csv"
    text = labels.read_text(encoding="utf-8")
    labels.write_text(
        "\ufeff" + text.replace("red05,red", "red05,").replace("blue07,blue", " blue07 , blue ")
        + "red06,blue,a\nred07,red,a\n../../x,red,a\n\n", encoding="utf-8",
    )  # fmt: skip
    table, rejected = ingest(pictures, params(), NO_ITEMS, None)
    assert table.loc[table["id"] == "blue07", "label"].item() == "blue"
    found = reasons(rejected)
    assert "cannot be decoded" in found.pop("train/green03.jpg")
    assert found == {
        "train/green01.jpg": "not a picture in JPEG, PNG, GIF, BMP, PPM, TIFF, WEBP, AVIF",
        "train/green02.jpg": "empty file",
        "train/green04": "no picture for this label",
        "train/green05.jpg": "a link out of the folder",
        "train/extra.jpg": "no label for this picture",
        "train/red05.jpg": "empty label",
        "train/red06.jpg": "labelled blue and red",
        "train/../../x": "no picture for this label",
    }
    assert "red07" in table["id"].tolist()


def test_ids_with_a_suffix_and_rows_in_any_order(pictures: Path) -> None:
    expected, _ = ingest(pictures, params(), NO_ITEMS, None)
    labels = pictures / "labels.csv"
    header, *rows = labels.read_text(encoding="utf-8").splitlines()
    with_suffix = [row.replace(",", ".jpg,", 1) for row in rows]
    labels.write_text("\n".join([header, *reversed(with_suffix)]), encoding="utf-8")
    table, _ = ingest(pictures, params(), NO_ITEMS, None)
    pd.testing.assert_frame_equal(table, expected)


@pytest.mark.parametrize(
    ("prepare", "changes", "message"),
    [
        ("", {"label_column": "breed"}, "has no column `breed` .* it has id, label, other"),
        ("rm labels.csv", {}, "the csv layout needs labels.csv"),
        ("", {"layout": "folders"}, "needs train/<class>/ and valid/<class>/"),
        ("rm train", {}, "no labelled pictures"),
        ("one class", {}, "labelled `red`: at least two classes are needed"),
        ("break", {"max_rejected_pct": 1.0}, r"1 of 40 files .* rejected \(2.5 %\).*1 x empty file .train/red03.jpg."),
    ],
)
def test_errors_say_what_was_found(pictures: Path, prepare: str, changes: dict[str, object], message: str) -> None:
    if prepare == "rm labels.csv":
        (pictures / "labels.csv").unlink()
    elif prepare == "rm train":
        for path in (pictures / "train").iterdir():
            path.unlink()
    elif prepare == "one class":
        (pictures / "labels.csv").write_text("id,label\nred01,red\nred02,red\n", encoding="utf-8")
    elif prepare == "break":
        (pictures / "train" / "red03.jpg").write_bytes(b"")
    with pytest.raises(StageError, match=message):
        ingest(pictures, params(**changes), NO_ITEMS, None)


def test_folders_have_no_group_column(pictures: Path) -> None:
    with pytest.raises(StageError, match="split.group_column is who, but only the csv layout has columns"):
        ingest(pictures, params(layout="folders"), NO_ITEMS, "who")


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"ingest.path must name the folder"):
        ingest(tmp_path / "nowhere", params(), NO_ITEMS, None)


def test_two_pictures_with_equal_bytes_are_kept_as_two_rows(tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "p", n_each=2, test=0)
    (folder / "train" / "red01.jpg").write_bytes((folder / "train" / "red00.jpg").read_bytes())
    table, _ = ingest(folder, params(), NO_ITEMS, None)
    assert len(table) == 6
    assert table["sha256"].nunique() == 5


def test_hidden_folders_are_no_class_and_linked_ones_are_named(tmp_path: Path) -> None:
    for number, label in enumerate(CLASSES * 2):
        draw_picture(tmp_path / "p" / ("train" if number < 3 else "valid") / label / f"{number}.png", label, number)
    draw_picture(tmp_path / "p/train/.ipynb_checkpoints/1.png", "red", 1)
    draw_picture(tmp_path / "other/1.png", "red", 1)
    (tmp_path / "p/train/white").symlink_to(tmp_path / "other")
    table, rejected = ingest(tmp_path / "p", params(layout="folders"), NO_ITEMS, None)
    assert set(table["label"]) == set(CLASSES)
    assert reasons(rejected) == {"train/white": "a link to a folder: not followed"}


def test_ids_may_name_folders_and_nothing_is_dropped_in_silence(tmp_path: Path) -> None:
    for number, file in enumerate(("a/1", "b/1", "b/2", "3")):
        draw_picture(tmp_path / "train" / f"{file}.jpg", CLASSES[number % 3], number)
        draw_picture(tmp_path / "test" / f"{file}.jpg", CLASSES[number % 3], number)
    (tmp_path / "labels.csv").write_text("id,label\na/1,red\n2.jpg,blue\n3,red\n3.jpg,blue\n", encoding="utf-8")
    table, rejected = ingest(tmp_path, params(), NO_ITEMS, None)
    assert table.loc[table["part"] == "train", "id"].tolist() == ["a/1", "b/2"]
    assert table.loc[table["part"] == "test", "id"].tolist() == ["3", "a/1", "b/1", "b/2"]
    assert reasons(rejected) == {"train/b/1.jpg": "no label for this picture", "train/3.jpg": "labelled blue and red"}


def test_of_files_with_one_id_each_keeps_its_suffix_whatever_they_hold(tmp_path: Path) -> None:
    """As stages.predict calls them, so that a submission has the same ids; a broken picture changes no other's id."""
    folder = draw_pictures(tmp_path, n_each=2, test=2)
    draw_picture(folder / "test/t0.png", "red", 7)
    (folder / "test/t1.png").write_bytes(b"")
    (folder / "test/t1.txt").write_text("no picture", encoding="utf-8")
    draw_picture(folder / "test/t2.jpg", "red", 8)
    (folder / "test/t2.jpg").rename(folder / "test/t2.dat")
    draw_picture(folder / "test/a/t2.jpg", "red", 9)
    table, _ = ingest(folder, params(), NO_ITEMS, None)
    of_test = table[table["part"] == "test"]
    found = dict(zip(of_test["file"], of_test["id"], strict=True))
    assert found == {
        "test/t0.jpg": "t0.jpg",
        "test/t0.png": "t0.png",
        "test/t1.jpg": "t1.jpg",
        "test/t2.dat": "t2",
        "test/a/t2.jpg": "a/t2",
    }
    predicted = {str(Path(one.path).relative_to(folder)): one.id for one in input_files([str(folder / "test")])}
    assert predicted.items() >= found.items()
    assert predicted["test/t1.png"] == "t1.png"
    assert predicted["test/t1.txt"] == "t1.txt"


def make_folders(folder: Path, *files: str) -> Path:
    for number, file in enumerate(files):
        draw_picture(folder / file, "red", number)
    return folder


CAFE = {"NFC": "caf\u00e9", "NFD": "cafe\u0301"}


def test_a_class_written_in_two_unicode_forms_is_one_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [f"train/{CAFE['NFC']}/1.jpg", "train/tea/1.jpg", f"valid/{CAFE['NFD']}/2.jpg", "valid/tea/2.jpg"]
    table, rejected = ingest(make_folders(tmp_path, *files), params(layout="folders"), NO_ITEMS, None)
    assert rejected.empty
    assert table["label"].tolist() == [CAFE["NFC"], "tea", CAFE["NFC"], "tea"]
    assert table["id"].tolist() == [f"{CAFE['NFC']}/1", "tea/1", f"{CAFE['NFC']}/2", "tea/2"]
    assert sorted(table["file"]) == sorted(files)
    assert capsys.readouterr().err == (
        "ingest: a class is written in 2 Unicode forms, which count as one, `caf\u00e9`: 'cafe\\u0301', 'caf\\xe9'\n"
    )


def test_pictures_whose_names_differ_in_their_unicode_form_alone_are_rejected_both(tmp_path: Path) -> None:
    twins = [f"{part}/{form}.jpg" for part in ("train/tea", "test") for form in CAFE.values()]
    others = ["train/tea/1.jpg", "train/milk/1.jpg", "valid/tea/2.jpg", "test/t.jpg"]
    table, rejected = ingest(make_folders(tmp_path, *twins, *others), params(layout="folders"), NO_ITEMS, None)
    assert sorted(table["file"]) == sorted(others)
    assert reasons(rejected) == dict.fromkeys(
        twins, "another name differs from this in its Unicode form alone: rename one"
    )


def test_folders_in_class_folders_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["train/animals/cat/1.jpg", "train/animals/dog/1.jpg", "train/plants/1.jpg", "valid/animals/cat/2.jpg"]
    table, _ = ingest(make_folders(tmp_path, *files), params(layout="folders"), NO_ITEMS, None)
    assert table["label"].tolist() == ["animals", "animals", "plants", "animals"]
    assert capsys.readouterr().err == (
        "ingest: 3 folders lie in class folders, as train/animals/cat: their pictures are labelled with the outer "
        "folder, `animals`; if the inner folders are the classes, move them up to train/\n"
    )
    ingest(make_folders(tmp_path / "flat", "train/a/1.jpg", "train/b/1.jpg", "valid/a/2.jpg"),
           params(layout="folders"), NO_ITEMS, None)  # fmt: skip
    assert capsys.readouterr().err == ""


def test_odd_exif_and_odd_names(pictures: Path) -> None:
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x02\0\0\0A\0\0\0\0\0\0\0"  # orientation: the text A
    path = pictures / "train/red03.jpg"
    Image.open(path).save(path, exif=exif)
    name = os.fsdecode(b"caf\xe9.jpg")
    (pictures / "train" / name).write_bytes(path.read_bytes())
    table, rejected = ingest(pictures, params(), NO_ITEMS, None)
    assert table.loc[table["id"] == "red03", "orientation"].item() == 1
    assert reasons(rejected) == {"train/caf\ufffd.jpg": "a name that is not UTF-8"}


def test_a_picture_for_which_there_is_no_memory_is_not_rejected(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    items = Items("ingest", {}, ItemsParams(max_gib=1))
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "convert", lambda *_: bytearray(1 << 62))
        with pytest.raises(StageError, match=r"no memory left to open .*/train/\w+\.jpg: lower ingest.max_megapixels"):
            ingest(pictures, params(), items, None)
    assert ingest(pictures, params(), items, None)[1].empty


def test_control_characters_reach_no_output(pictures: Path) -> None:
    (pictures / "train/red03.jpg").rename(pictures / "train/red\x0703.jpg")
    rows = (
        (pictures / "labels.csv")
        .read_text(encoding="utf-8")
        .replace("red03", '"red\x0703"')
        .replace("red04,red", 'red04,"r\x1b[2Jed"')
    )
    (pictures / "labels.csv").write_text(rows, newline="", encoding="utf-8")
    table, rejected = ingest(pictures, params(), NO_ITEMS, None)
    assert set(table["label"]) == {"", *CLASSES}
    assert reasons(rejected) == dict.fromkeys(
        ("train/red\ufffd03.jpg", "train/red04.jpg"), "control characters in its name or label"
    )


def test_rows_without_an_id_too_long_or_ending_in_a_comma(pictures: Path) -> None:
    labels = pictures / "labels.csv"
    long = "x" * 300
    rows = [f"{row}," for row in labels.read_text(encoding="utf-8").splitlines()[1:]]
    labels.write_text(
        "\n".join(["id,label,other", *rows, ",red,a,", ",,", ".,red,a,", "/,red,a,", f"{long},red,a,"]),
        encoding="utf-8",
    )
    table, rejected = ingest(pictures, params(max_rejected_pct=50), NO_ITEMS, None)
    assert len(table) == 40
    found = reasons(rejected)
    assert found.pop(f"train/{long}") == "no picture for this label"
    assert set(found) == {"train/", "train/.", "train//"}
    labels.write_text("id,label\nred01,red,apple\n", encoding="utf-8")
    with pytest.raises(StageError, match=r"more fields in a row than in its header \(id, label\): red01,red,apple"):
        ingest(pictures, params(), NO_ITEMS, None)


def test_one_row_an_object_is_one_picture(pictures: Path) -> None:
    labels = pictures / "labels.csv"
    header, *rows = labels.read_text(encoding="utf-8").splitlines()
    expected, _ = ingest(pictures, params(), NO_ITEMS, None)
    labels.write_text("\n".join([header, *rows, *rows]), encoding="utf-8")
    table, rejected = ingest(pictures, params(), NO_ITEMS, None)
    pd.testing.assert_frame_equal(table, expected)
    assert rejected.empty


def test_links_into_dvcs_cache_are_followed_and_thin_pictures_rejected(pictures: Path) -> None:
    cached = pictures.parent / "cache/files/md5/ab" / ("c" * 30)
    cached.parent.mkdir(parents=True)
    (pictures / "train/red03.jpg").rename(cached)
    (pictures / "train/red03.jpg").symlink_to(cached)
    Image.new("RGB", (1, 300)).save(pictures / "train/red04.jpg")
    table, rejected = ingest(pictures, params(), NO_ITEMS, None)
    assert "red03" in set(table["id"])
    assert reasons(rejected) == {"train/red04.jpg": "1 x 300 pixels: thinner than 1:100"}
