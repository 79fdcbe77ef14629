"""Plots as PNG files, without a window; the same data gives the same bytes."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

plt.rcParams["text.parse_math"] = False  # labels may contain a dollar sign
warnings.filterwarnings(
    "ignore", "Glyph .* missing|constrained_layout not applied"
)  # labels may contain rare characters, or be many
LONGEST = 40


def short(names: Iterable[str]) -> list[str]:
    """Shortens names for an axis, so that a long one leaves room for the plot."""
    return [name if len(name) <= LONGEST else f"{name[: LONGEST - 12]}...{name[-9:]}" for name in names]


@contextmanager
def figures(path: Path, title: str, columns: int) -> Iterator[list[Axes]]:
    """Plots side by side in one file; yields their axes."""
    fig, axes = plt.subplots(1, columns, figsize=(7 * columns, 4.5), layout="constrained", squeeze=False)
    fig.suptitle(title)
    yield list(axes[0])
    fig.savefig(path, dpi=110)
    plt.close(fig)


@contextmanager
def figure(path: Path, title: str) -> Iterator[Axes]:
    """One plot; yields its axes."""
    with figures(path, title, 1) as (axes,):
        yield axes
