"""Outputs appear whole or not at all."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from stages.runtime import signals
from stages.runtime.outputs import atomic_file, outputs
from tests.conftest import ROOT


def test_they_replace_their_namesakes_and_leave_the_rest(tmp_path: Path) -> None:
    folder = tmp_path / "stage"
    (folder / "shards").mkdir(parents=True)
    (folder / "shards/old").write_text("old", encoding="utf-8")
    (folder / ".gitignore").write_text("/shards", encoding="utf-8")
    with outputs(folder) as staging:
        (staging / "shards").mkdir()
        (staging / "shards/new").write_text("new", encoding="utf-8")
        assert (folder / "shards/old").exists()
    assert [path.name for path in (folder / "shards").iterdir()] == ["new"]
    assert (folder / ".gitignore").read_text(encoding="utf-8") == "/shards"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


def write_half(folder: Path, kind: type[BaseException]) -> None:
    with outputs(folder) as staging:
        (staging / "result").write_text("half", encoding="utf-8")
        raise kind


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_who_fails_leaves_nothing(tmp_path: Path, kind: type[BaseException]) -> None:
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "result").write_text("old", encoding="utf-8")
    with pytest.raises(kind):
        write_half(folder, kind)
    assert (folder / "result").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]


def test_a_file_replaces_its_namesake_when_all_is_written(tmp_path: Path) -> None:
    path = tmp_path / "below/result.csv"
    for text in ("old", "new"):
        with atomic_file(path) as staging:
            staging.write_text(text, encoding="utf-8")
            assert path.exists() == (text == "new")
            assert (staging.name, staging.parent.parent) == (path.name, path.parent)
        assert path.read_text(encoding="utf-8") == text
    assert [one.name for one in path.parent.iterdir()] == ["result.csv"]


@pytest.mark.parametrize("make", [outputs, atomic_file])
def test_who_was_told_to_stop_puts_nothing_in_place(
    tmp_path: Path, make: Callable[[Path], AbstractContextManager[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "result"

    def stop() -> None:
        assert not path.is_file()
        assert not (path / "a").exists()
        raise signals.Stopped

    monkeypatch.setattr("stages.runtime.signals.check", stop)
    with pytest.raises(signals.Stopped), make(path) as staging:
        (staging / "a" if make is outputs else staging).write_text("new", encoding="utf-8")
    assert [str(one.relative_to(tmp_path)) for one in tmp_path.rglob("*")] == ["result"][: make is outputs]


def test_files_in_folders_are_brought_to_the_disk_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("stages.runtime.outputs.sync", lambda path: done.append(path.name))
    with outputs(tmp_path / "stage") as folder:
        (folder / "shards").mkdir()
        (folder / "shards/a").write_text("a", encoding="utf-8")
    assert done == [folder.name, "a", "shards", "stage"]
    done.clear()
    with atomic_file(tmp_path / "b.csv") as file:
        file.write_text("b", encoding="utf-8")
    assert done == ["b.csv", tmp_path.name]


def test_what_the_dead_left_is_removed_and_what_the_living_write_is_not(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    living = os.getppid()
    for pid in (dead.pid, living):
        (tmp_path / f".stage.{pid}.tmp").mkdir()
        (tmp_path / f".stage.{pid}.tmp" / "part").write_text("half", encoding="utf-8")
    (tmp_path / ".stage.notes.tmp").mkdir()
    with outputs(tmp_path / "stage"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".stage.{living}.tmp", ".stage.notes.tmp", "stage"]


def test_every_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr("stages.runtime.outputs.sync", lambda path: done.append(path.name))
    replace = Path.replace

    def noted(path: Path, target: Path) -> Path:
        done.append(f"-> {target.name}")
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", noted)
    with outputs(tmp_path / "stage") as folder:
        (folder / "a").write_text("a", encoding="utf-8")
    assert done == ["a", folder.name, "-> a", "stage"]


def test_two_that_end_at_once_both_put_a_whole_folder_in_place(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from stages.runtime.outputs import outputs\n"
        "for n in range(60):\n"
        "    with outputs(Path(sys.argv[1])) as folder:\n"
        "        (folder / 'shards').mkdir()\n"
        "        for name in 'ab': (folder / 'shards' / name).write_text(f'{sys.argv[2]} {n}')\n"
    )
    both = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path / "stage"), who], cwd=ROOT) for who in "12"]
    assert [process.wait() for process in both] == [0, 0]
    shards = tmp_path / "stage/shards"
    assert (shards / "a").read_text(encoding="utf-8") == (shards / "b").read_text(encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["stage"]
