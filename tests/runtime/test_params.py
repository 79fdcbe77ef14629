"""Wrong params are named, with their value and the rule."""

import re
from pathlib import Path
from textwrap import indent

import pytest

from stages.runtime.errors import StageError
from stages.runtime.params import load
from stages.split import SplitParams
from stages.train_full import TrainFullParams

GOOD = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(old: str, new: str) -> None:
    text = GOOD.read_text(encoding="utf-8")
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new, 1), encoding="utf-8")


def test_scientific_notation_is_a_number() -> None:
    write("lrs: [", "lrs: [1e-4, 1e-3, 1e-2] # [")
    assert load("train_full", TrainFullParams).lrs == [1e-4, 1e-3, 1e-2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cv_idx: 0", "cv_idx: 0\n  fold: 1", "unknown key `split.fold`"),
        ("cv_idx: 0", "cv_idx: 0\n  my-fold: 1", "unknown key `split.my-fold`"),
        ("cv_idx: 0", "cv_idx: '0'", "`split.cv_idx` is '0'"),
        ("cv_idx: 0", "cv_idx: true", "`split.cv_idx` is True"),
        ("cv_idx: 0", "cv_idx: -1", "greater than or equal to 0"),
        ("cv_idx: 0", "", "`split.cv_idx` is missing"),
        ("method: random", "method: lucky", "'random', 'stratified' or 'folders'"),
        ("split:\n", "splits:\n", "unknown section 'splits': remove it or correct its spelling (split?)"),
        ("tta:\n", "train_ful: 1\ntta:\n", "(train_full?)"),
        ("split:\n", "split: [\n", "not valid YAML"),
    ],
)
def test_split_section(old: str, new: str, message: str) -> None:
    write(old, new)
    with pytest.raises(StageError, match=re.escape(message)):
        load("split", SplitParams)


LAUGHS = "\n".join(f"a{n}: &a{n} [{', '.join(['*a' + str(n - 1)] * 9) if n else 'lol'}]" for n in range(20))
MERGES = "\n".join(f"a{n}: &a{n} {{<<: [{', '.join(['*a' + str(n - 1)] * 9 if n else ['{}'])}]}}" for n in range(20))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cv_idx: 0", f"cv_idx:\n{indent(LAUGHS, '    ')}", r"`split.cv_idx` is \{'a0': .*: Input should be"),
        ("split:\n", f"{MERGES}\nsplit: *a19\nold:\n", r"merges \(<<\) and has 17\d aliases .*: 30 at most"),
        ("cv_idx: 0", "cv_idx: " + "[" * 60_000 + "]" * 60_000, "has 60,... keys, dashes and brackets: 5,000 at most"),
        ("cv_idx: 0", "cv_idx: " + "[" * 4000 + "]" * 4000, "`split.cv_idx` is "),
        ("cv_idx: 0", "cv_idx:\n" + "- " * 60_000, "has 60,... keys, dashes and brackets: 5,000 at most"),
        ("cv_idx: 0", f"cv_idx: {'9' * 5000}", "not valid YAML: ValueError: Exceeds the limit"),
        ("cv_idx: 0", f"cv_idx: -0x{'f' * 5000}", "`split.cv_idx` is a huge number: Input should be greater"),
        ("cv_idx: 0", "cv_idx: 2026-13-45", "not valid YAML: ValueError: month must be in 1..12"),
        ("cv_idx: 0", "cv_idx: !!bool abc", "not valid YAML: KeyError: 'abc'"),
        ("cv_idx: 0", "cv_idx: !!omap [a: 1]", "`split.cv_idx` is a ordereddict: Input should be"),
        ("cv_idx: 0", "cv_idx: &x [*x]", r"`split.cv_idx` is \[\[\[\[...\]\]\]\]: Input should be"),
        ("cv_idx: 0", f"cv_idx: {'x' * 1_000_000}", r"`split.cv_idx` is 'x{47}\.\.\.x{48}': Input should be"),
        ("cv_idx: 0", "cv_idx: !!python/object/apply:os.mkdir [ran]", "could not determine a constructor"),
    ],
)
def test_hostile_yaml_is_refused_at_once(old: str, new: str, message: str) -> None:
    write(old, new)
    with pytest.raises(StageError, match=message):
        load("split", SplitParams)
    assert [path.name for path in Path().iterdir()] == ["params.yaml"]


def test_a_rate_as_a_string() -> None:
    write("lrs: [", "lrs: ['1e-4', 0.001, 0.01] # [")
    with pytest.raises(StageError, match=r"`train_full\.lrs\.0` is '1e-4'"):
        load("train_full", TrainFullParams)


def test_no_file_says_where_to_run() -> None:
    with pytest.raises(StageError, match="top folder of the project"):
        load("split", SplitParams)
