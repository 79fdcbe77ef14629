"""Every text file, and what other programs print, is UTF-8 whatever the locale.

Ruff's PLW1514 sees a call only where it knows the type (`Path(...).read_text()`); this test goes by the method's name.
"""

import ast
import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

MODE = re.compile(r"[rwxabt+]+")
PLACES = {"open": 1, "fdopen": 1, "NamedTemporaryFile": 0, "TemporaryFile": 0}  # of the argument `mode`


def without_encoding(source: str) -> Iterator[int]:
    """Lines of calls that read or write text in the encoding of the locale."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and is_text(call) and "encoding" not in {one.arg for one in call.keywords}:
            yield call.lineno


def is_text(call: ast.Call) -> bool:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given: dict[str | None, object] = {one.arg: getattr(one.value, "value", None) for one in call.keywords}
    if name in ("read_text", "write_text"):
        return len(call.args) == (name == "write_text")  # one more is the encoding
    if name not in PLACES:
        return bool(given.get("text") or given.get("universal_newlines"))
    values = [getattr(one, "value", None) for one in call.args]
    is_of_path = name == "open" and isinstance(call.func, ast.Attribute)
    if is_of_path and values and not (isinstance(values[0], str) and MODE.fullmatch(values[0])):
        return False  # Image.open(path), tarfile.open(path, "w"), os.open(path, flags)
    place = 0 if is_of_path else PLACES[name]
    mode = values[place] if len(values) > place else given.get("mode", "r" if "open" in name else "w+b")
    return isinstance(mode, str) and "b" not in mode


@pytest.mark.parametrize(
    ("call", "is_found"),
    [
        ("path.read_text()", True),
        ("path.read_text(encoding='utf-8')", False),
        ("path.read_text('utf-8')", False),
        ("path.write_text(text)", True),
        ("path.open()", True),
        ("path.open('w')", True),
        ("path.open('wb')", False),
        ("path.open(mode='a')", True),
        ("open(path)", True),
        ("open(path, 'rb')", False),
        ("os.fdopen(fd, 'w')", True),
        ("Image.open(path)", False),
        ("NamedTemporaryFile()", False),
        ("NamedTemporaryFile('w')", True),
        ("subprocess.run(command, text=True)", True),
        ("subprocess.run(command, capture_output=True)", False),
        ("subprocess.run(command, encoding='utf-8')", False),
    ],
)
def test_what_is_found(call: str, is_found: bool) -> None:
    assert [*without_encoding(call)] == [1] * is_found


def test_no_text_depends_on_the_locale() -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.py"]
    tracked = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout.split("\0")
    files = [ROOT / name for name in tracked if name and (ROOT / name).is_file()]
    assert len(files) > 100
    assert [
        f"{file.relative_to(ROOT)}:{line}" for file in files for line in without_encoding(file.read_text("utf-8"))
    ] == []
