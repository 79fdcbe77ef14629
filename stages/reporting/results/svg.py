"""Draws a plot as SVG for a page, in the page's text colour (light or dark), with text that can be selected.

The same data gives the same bytes.
"""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager

from markupsafe import Markup
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

import stages.reporting.figures.plots  # noqa: F401 (chooses the backend, before pyplot does)

INK = "#010203"  # replaced by the text colour of the page
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "unfreeze",
    "savefig.transparent": True,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.framealpha": 0,
    "legend.fontsize": 8,
    "figure.constrained_layout.use": True,
    **dict.fromkeys(["text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"], INK),
}


class Drawing:
    """The result of `drawing`. `svg` is set when its block ends."""

    svg: Markup


@contextmanager
def drawing(width_inches: float = 4.6, height_inches: float = 3.0) -> Iterator[tuple[Axes, Drawing]]:
    """Yields the axes of one plot, and its `Drawing`.

    By default the text of the plot is readable at a width of 360 px, because a page may be read on a phone.
    """
    result, buffer = Drawing(), io.StringIO()
    with plt.rc_context(STYLE):  # type: ignore[arg-type]
        fig, ax = plt.subplots(figsize=(width_inches, height_inches))
        yield ax, result
        fig.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(fig)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r'<metadata>.*?</metadata>|<style type="text/css">.*?</style>', "", text, flags=re.DOTALL)
    head = re.sub(r' (width|height)="[^"]*"', "", text[: text.index(">")])
    result.svg = Markup(head + ' role="img"' + text[text.index(">") :])  # noqa: S704 (matplotlib escapes data)
