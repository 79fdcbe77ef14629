"""A comment changes no version, an operator does."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from stages.runtime.code_version import code_version

SOURCE = '''"""What it is."""

def double(x):
    """Twice."""
    return 2 * x  # not x + x
'''


def module(path: Path, source: str) -> ModuleType:
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    return importlib.util.module_from_spec(spec)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        ("# not x + x", "# x + x is slower", True),
        ('"""Twice."""', '"""Two times x."""', True),
        ("2 * x", "(2 * x)", True),
        ("2 * x", "3 * x", False),
        ("(x)", "(x, y=0)", False),
    ],
)
def test_version(tmp_path: Path, old: str, new: str, same: bool) -> None:
    before, after = module(tmp_path / "a.py", SOURCE), module(tmp_path / "b.py", SOURCE.replace(old, new))
    assert (code_version(before) == code_version(after)) is same
