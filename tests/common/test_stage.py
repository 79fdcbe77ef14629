"""An error is one line, whatever it quotes."""

import pytest

from stages.common.trouble import StageError, one_line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("no folder x:\n  mend it", "no folder x: mend it"),
        ("a label \x1b[2J\x07 and a name \udce9", "a label \ufffd[2J\ufffd and a name \ufffd"),
        ("\u732b \U0001f408 \u202eabc", "\u732b \U0001f408 \ufffdabc"),
        ("x" * 2001, "x" * 2000 + "..."),
    ],
)
def test_one_line(text: str, line: str) -> None:
    assert one_line(StageError(text)) == line
