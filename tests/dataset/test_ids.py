"""Ids: SUFFIXES are the suffixes that Pillow reads, and every file gets its own id."""

from itertools import combinations

from PIL import Image

from stages.dataset.reading.ids import SUFFIXES, matcher, picture_ids, to_nfc, unicode_variants
from stages.vision.files.images import FORMATS

PATHS = ["a.jpg", "a.png", "a", "a.txt", "a.jpg.png", "b/a.jpg", "b/a.JPG", "c.txt", "c.json", "e\u0301.jpg"]


def test_suffixes_are_those_of_the_formats_that_are_read() -> None:
    Image.init()
    known = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    assert known == SUFFIXES


def test_the_ids_of_a_folder() -> None:
    assert picture_ids(PATHS) == [
        "a.jpg", "a.png", "a", "a.txt", "a.jpg.png", "b/a.jpg", "b/a.JPG", "c.txt", "c.json", "\u00e9",
    ]  # fmt: skip
    assert picture_ids(["a.jpg", "a.txt", "b.jpg.png", "b.jpg"]) == ["a", "a.txt", "b.jpg.png", "b"]
    assert picture_ids(["v1.2/a.JPEG", "v1/a", "x.dat"]) == ["v1.2/a", "v1/a", "x"]


def test_an_id_means_its_own_file_whatever_lies_beside_it() -> None:
    """In every folder of up to four of these files, no two files have the same id, and each id means only its file."""
    for n in range(1, 5):
        for paths in combinations(PATHS, n):
            ids = picture_ids(paths)
            assert len(set(ids)) == n
            files_of = matcher(paths)
            assert [files_of(id_) for id_ in ids] == [[path] for path in paths]
            assert [path for path in paths if files_of(to_nfc(path)) != [path]] == []


def test_a_name_without_its_folder_means_all_files_of_that_name() -> None:
    files_of = matcher(["a/1.jpg", "b/1.jpg", "b/2.jpg", "2.txt", "c/3.txt", "d/3.txt", "c/4.dat"])
    found = {id_: files_of(id_) for id_ in ("1", "1.jpg", "a/1", "2", "2.jpg", "3", "4", "4.dat", "5", "")}
    assert found == {
        "1": ["a/1.jpg", "b/1.jpg"], "1.jpg": ["a/1.jpg", "b/1.jpg"], "a/1": ["a/1.jpg"], "2": ["2.txt"],
        "2.jpg": ["b/2.jpg"], "3": ["c/3.txt", "d/3.txt"], "4": ["c/4.dat"], "4.dat": ["c/4.dat"], "5": [], "": [],
    }  # fmt: skip


def test_names_that_differ_in_their_unicode_form_alone() -> None:
    assert unicode_variants(["e\u0301", "a", "\u00e9", "a", "e\u0301", "\u00fc", "fi", "\ufb01"]) == {
        "\u00e9": ["e\u0301", "\u00e9"]
    }
