"""What SECURITY.md promises. Each guard was taken away once, to see its test fail."""

import ast
import csv
import gzip
import hashlib
import io
import os
import pickle
import re
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image

from flows.pages.table import Row, markdown
from stages import download
from stages.backbone import BackboneParams, find_weights
from stages.runtime.errors import StageError
from stages.vision.files.images import BadPictureError, decode, examine
from tests.conftest import BODY, CLASSES, ROOT, Project, make_project

# --- weights ---------------------------------------------------------------------------------------------------------


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.folder),)


def use_weights(path: Path, sha256: str | None = None) -> None:
    sha256 = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    find_weights(
        BackboneParams(name=BODY, weights_file=str(path), weights_sha256=sha256, weights_key=None, crop_pct=None)
    )


@pytest.mark.parametrize("how", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".bin", ".safetensors"])
def test_code_in_a_weights_file_is_not_run(tmp_path: Path, how: str, suffix: str) -> None:
    path, state = tmp_path / f"weights{suffix}", {"state_dict": Evil(tmp_path / "ran")}
    if how == "pickle":
        path.write_bytes(pickle.dumps(state))
    else:
        torch.save(state, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(StageError, match="no weights that can be read safely"):
        use_weights(path)
    assert not (tmp_path / "ran").exists()


def test_weights_with_another_sha256_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights.pth"
    torch.save({}, path)
    monkeypatch.setattr("stages.models.pretrained.weights.read_file", lambda path: pytest.fail("read"))
    with pytest.raises(StageError, match="has sha256"):
        use_weights(path, sha256="0" * 64)


# --- archives --------------------------------------------------------------------------------------------------------

Make = Callable[[Path, str, bytes], None]


def zipped(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images/Bengal_1.jpg", b"")
        archive.writestr(name, content)


def tarred(path: Path, name: str, content: bytes) -> None:
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("images/Bengal_1.jpg"))
        entry = tarfile.TarInfo(name)
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def unpack(folder: Path) -> None:
    download.lay_out("oxford_pets", folder / "a", folder / "deep/er/out")


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize(
    "name", ["../x_1.jpg", "a/../../../x_1.jpg", "/tmp/x_1.jpg", "..\\..\\x_1.jpg", "../labels.csv"]
)
def test_names_that_leave_the_folder_stop_the_unpacking(tmp_path: Path, make: Make, name: str) -> None:
    make(tmp_path / "a", name, b"x")
    with pytest.raises(StageError, match="which leads out of its folder: not unpacked"):
        unpack(tmp_path)
    assert files(tmp_path) == {"a", "deep/er/out/train/Bengal_1.jpg"}
    assert not Path("/tmp/x_1.jpg").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_not_unpacked(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a", "w") as archive:
        archive.addfile(tarfile.TarInfo("images/Bengal_1.jpg"))
        for name in ("images/link_1.jpg", "test", "train"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, "/etc/passwd"
            archive.addfile(entry)
    unpack(tmp_path)
    assert files(tmp_path) == {"a", "deep/er/out/train/Bengal_1.jpg", "deep/er/out/labels.csv"}


def test_a_link_in_a_zip_becomes_a_file(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("images/link_1.jpg")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    unpack(tmp_path)
    assert not (tmp_path / "deep/er/out/train/link_1.jpg").is_symlink()


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", ["images/Bomb_1.jpg", "labels.csv", "readme.txt"])
def test_a_bomb_is_not_unpacked(tmp_path: Path, make: Make, name: str) -> None:
    make(tmp_path / "a", name, bytes(100_000_000))
    with pytest.raises(StageError, match="unpacks to more than 20 times its size"):
        unpack(tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "deep").rglob("*") if path.is_file()) == 0


def test_a_bomb_of_zips_and_one_of_many_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        for number in range(3):
            with zipfile.ZipFile(tmp_path / "inner", "w", zipfile.ZIP_DEFLATED) as inner:
                inner.writestr(f"images/Bomb_{number}.jpg", bytes(30_000_000))
            archive.write(tmp_path / "inner", f"{number}.zip")
    with pytest.raises(StageError, match="unpacks to more than"):
        unpack(tmp_path)
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        for number in range(20_000):
            archive.writestr(f"images/Bengal_{number}.txt", b"")
    with pytest.raises(StageError, match="unpacks to more than"):
        download.lay_out("oxford_pets", tmp_path / "a", tmp_path / "other")


def test_a_negative_size_in_a_tar_does_not_go_round_for_ever(tmp_path: Path) -> None:
    header = bytearray(tarfile.TarInfo("images/Bengal_1.jpg").tobuf())
    header[124:136] = struct.pack(">I", 0xFFFFFFFF) + struct.pack(">q", -512)  # the next header is this one
    header[148:156] = b"%06o\0 " % (sum(header) - sum(header[148:156]) + 8 * 32)
    (tmp_path / "a").write_bytes(tarfile.TarInfo("first").tobuf() + bytes(header) + bytes(2048))
    with pytest.raises(StageError, match="unpacks to more"):
        unpack(tmp_path)


# --- pictures --------------------------------------------------------------------------------------------------------


def test_a_picture_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow has Ghostscript run the program that an EPS file is."""
    ran = tmp_path / "ran"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {ran}\n", encoding="utf-8")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)
    Image.new("RGB", (40, 40)).save(tmp_path / "picture.jpg", "EPS")
    for look in (examine, decode):
        with pytest.raises(BadPictureError, match="not a picture in"):
            look((tmp_path / "picture.jpg").read_bytes(), 1_000_000)
    assert not ran.exists()


# --- names and labels ------------------------------------------------------------------------------------------------

LABELS = dict(
    zip(CLASSES, ("<script>alert(1)</script>", "$(touch touched); touch touched", "../../x|`y`{{z}}"), strict=True)
)
NAMES = (
    "$(touch touched)", "; touch touched;", "`touch touched`", "| touch touched", "-rf", "--help", "a'b\"c", "<script>",
    "\\script>", "%s {x} ${seed}", "&& touch touched",
)  # fmt: skip
OUTSIDE = ("../../etc/passwd", "/etc/passwd", "../outside", "../outside.jpg", "../../outside.jpg", "d/../../x")
BY_DVC = (".dvc/cache/", ".dvc/tmp/", "dvc.lock")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> tuple[Project, set[str]]:
    """A project whose labels and names are hostile, run as a whole; and the files that were there before."""
    home = tmp_path_factory.mktemp("hostile")
    project = make_project(home / "project", shim)
    pictures = project.folder / "pictures"
    rows = list(csv.reader((pictures / "labels.csv").read_text(encoding="utf-8").splitlines()))[1:]
    for (old, *_), new in zip(rows, NAMES, strict=False):
        (pictures / f"train/{old}.jpg").rename(pictures / f"train/{new}.jpg")
    for place in (project.folder, home, pictures):
        (place / "outside.jpg").write_bytes((pictures / "test/t0.jpg").read_bytes())
    names = [*NAMES, *(row[0] for row in rows[len(NAMES) :])]
    with (pictures / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(["id", "label"])
        csv.writer(file).writerows([name, LABELS[row[1]]] for name, row in zip(names, rows, strict=True))
        csv.writer(file).writerows([name, LABELS["red"]] for name in OUTSIDE)
    project.params({"ingest.max_rejected_pct": 50})
    before = files(home)
    project.repro("evaluate", "lr_find")
    return project, before


def test_hostile_names_and_labels_write_nothing_outside(hostile: tuple[Project, set[str]]) -> None:
    project, before = hostile
    stages = {path.name for path in (project.folder / "data").iterdir()}
    assert stages - {"dvc.yaml", "params.yaml"} == {
        "ingest", "split", "resize", "backbone", "precompute", "lr_find", "train_head", "augment", "unfreeze",
        "train_full", "tta", "evaluate",
    }  # fmt: skip
    allowed = tuple(f"project/{one}" for one in (".unfreeze/", "data/", *BY_DVC))
    assert {name for name in files(project.folder.parent) - before if not name.startswith(allowed)} == set()
    assert before <= files(project.folder.parent)


def test_hostile_names_and_labels_are_names_and_labels(hostile: tuple[Project, set[str]]) -> None:
    folder = hostile[0].folder / "data"
    table = pd.read_parquet(folder / "ingest/images.parquet")
    assert set(NAMES) <= set(table["id"])
    assert set(table["label"]) == {"", *LABELS.values()}
    rejected = pd.read_csv(folder / "ingest/rejected.csv")
    assert dict(zip(rejected["file"], rejected["reason"], strict=True)) == {
        f"train/{name}": "no picture for this label" for name in OUTSIDE
    }
    assert set(pd.read_csv(folder / "evaluate/confusion.csv")["actual"]) <= set(LABELS.values())
    assert set(pd.read_csv(folder / "evaluate/submission.csv")) == {"id", *LABELS.values()}


def test_markdown_for_prefect_shows_what_comes_from_the_data_as_it_is() -> None:
    why = ("</script><img src=x onerror=y>", "[a](javascript:b) ![c](d)", "`e` | *f* ~g~ \\h &lt;")
    row = markdown([Row("split", "failed", why)]).splitlines()[-1]
    assert row == (
        "| split | failed |  |  |  | &lt;/script&gt;&lt;img src=x onerror=y&gt;<br>"
        r"\[a\](javascript:b) \!\[c\](d)<br>\`e\` \| \*f\* \~g\~ \\h &amp;lt; |"
    )


# --- rules of the repository -----------------------------------------------------------------------------------------

NO_IMPORT = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "yaml", "pty"}
NO_CALL = {"eval", "exec", "__import__"}
NO_METHOD = {
    "extractall", "extract", "unpack_archive", "system", "popen", "getoutput", "getstatusoutput", "read_pickle",
    "to_pickle", "load_module", "load_state_dict_from_url", "unsafe_load",
}  # fmt: skip


def keyword(call: ast.Call, name: str) -> object:
    """A keyword's constant value; "?" where it is no constant, None where it is not given."""
    values = [one.value for one in call.keywords if one.arg == name]
    return (values[0].value if isinstance(values[0], ast.Constant) else "?") if values else None


def broken_rules(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [f"import {name}" for name in names if name.split(".")[0] in NO_IMPORT]
            if isinstance(node, ast.ImportFrom) and node.module == "torch":  # else torch.load would go by another name
                found += [f"from torch import {alias.name}" for alias in node.names if alias.name == "load"]
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        name = called.rpartition(".")[2]
        if (
            called in NO_CALL
            or (name in NO_METHOD and "." in called)
            or (called == "torch.load" and keyword(node, "weights_only") is not True)
            or keyword(node, "shell")
            or keyword(node, "allow_pickle")
            or (name == "YAML" and keyword(node, "typ") not in ("safe", "rt"))
        ):
            found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from joblib import load", "import yaml", "eval('1')", "exec(text)", "os.system('ls')",
        "torch.load(path)", "torch.load(path, weights_only=False)", "torch.load(path, weights_only=safe)",
        "subprocess.run(command, shell=True)", "Popen(command, shell=shell)", "archive.extractall(folder)",
        "np.load(path, allow_pickle=True)", "YAML(typ='unsafe').load(text)", "YAML().load(text)",
        "pd.read_pickle(path)", "from torch import load",
    ],
)  # fmt: skip
def test_the_rules_see(source: str) -> None:
    assert broken_rules(source)


@pytest.mark.parametrize("folder", ["stages", "flows"])
def test_no_code_that_runs_what_it_reads(folder: str) -> None:
    found = {str(path): broken_rules(path.read_text(encoding="utf-8")) for path in ROOT.glob(f"{folder}/**/*.py")}
    assert {name: rules for name, rules in found.items() if rules} == {}
    assert len(found) > 10


def test_nothing_that_we_start_or_deploy_is_told_to_listen_beyond_loopback() -> None:
    """Prefect's own default is loopback: tests/flows/test_listening.py."""
    for path in (
        *ROOT.glob("flows/**/*.py"),
        ROOT / "prefect.yaml",
        ROOT / "Makefile",
        *ROOT.glob("stages/**/*.py"),
        *ROOT.glob("app/*.py"),
    ):
        assert not any(
            word in path.read_text(encoding="utf-8") for word in ("0.0.0.0", "--host", "SERVER_API_HOST", ".listen(")
        ), path


def test_every_promise_is_held_by_tests_that_there_are() -> None:
    promises = [
        line for line in (ROOT / "SECURITY.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")
    ][1:]
    assert len(promises) == 12
    for promise in promises:
        names, file = re.findall(r"`([\w/.]*(?:\.py)?)::(\w+)`", promise), ""
        assert names, promise
        for given, name in names:
            file = given or file
            assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), (file, name)


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_header_of_a_tar_is_not_read_into_memory_whatever_its_size(tmp_path: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = kind, 50_000_000
    with gzip.open(tmp_path / "a", "wb", compresslevel=1) as archive:
        archive.write(
            header.tobuf() + bytes(header.size) + tarfile.TarInfo("images/Bengal_1.jpg").tobuf() + bytes(1024)
        )
    tracemalloc.start()
    with pytest.raises(StageError, match=r"not unpacked$"):
        unpack(tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
