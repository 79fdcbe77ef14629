"""Draws plots as PNG files, without a window. The same data gives the same bytes."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

plt.rcParams["text.parse_math"] = False  # labels may contain a dollar sign
# Labels may contain rare characters, and there may be too many labels for the layout.
warnings.filterwarnings("ignore", "Glyph .* missing|constrained_layout not applied")
MAX_NAME_LENGTH = 40


def shorten_names(names: Iterable[str]) -> list[str]:
    """Shortens names for an axis, so that a long one leaves room for the plot."""
    return [name if len(name) <= MAX_NAME_LENGTH else f"{name[: MAX_NAME_LENGTH - 12]}...{name[-9:]}" for name in names]


@contextmanager
def figures(path: Path, title: str, columns: int) -> Iterator[list[Axes]]:
    """Yields the axes of plots side by side, and writes the plots to one file at the end."""
    fig, axes = plt.subplots(1, columns, figsize=(7 * columns, 4.5), layout="constrained", squeeze=False)
    fig.suptitle(title)
    yield list(axes[0])
    fig.savefig(path, dpi=110)
    plt.close(fig)


@contextmanager
def figure(path: Path, title: str) -> Iterator[Axes]:
    """Yields the axes of one plot, and writes the plot at the end."""
    with figures(path, title, 1) as (axes,):
        yield axes
