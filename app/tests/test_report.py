"""The report of data whose labels and names are HTML."""

from pathlib import Path

import pytest

from app.tests.conftest import Open
from app.tests.hostile_names import LABELS, NAMED


@pytest.fixture
def report(project: Path) -> str:
    return (project / "data/evaluate/report.html").as_uri()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1400, 400])
def test_nothing_is_cut_off_or_pale(open_page: Open, report: str, width_px: int, color_scheme: str) -> None:
    assert open_page(report, width_px, color_scheme).check() == []


def test_labels_and_names_are_text(open_page: Open, report: str) -> None:
    page = open_page(report).page
    assert page.locator("script, b[onmouseover], img[onerror]").count() == 0
    text = page.locator("body").text_content()
    for label in (LABELS["blue"], LABELS["green"], LABELS["red"][:20]):
        assert label in text
    assert "red00<b onmouse" in text or NAMED not in page.content()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_it_prints_dark_on_white(open_page: Open, report: str, color_scheme: str) -> None:
    watched = open_page(report, 794, color_scheme)  # A4
    watched.page.emulate_media(media="print", color_scheme=color_scheme)
    assert watched.check() == []
    assert watched.page.pdf(format="A4").startswith(b"%PDF")
