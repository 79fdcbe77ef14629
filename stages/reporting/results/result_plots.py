"""Draws charts of the results on given axes, which `evaluate` writes as PNG files and `report` embeds in its page."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from stages.reporting.figures.plots import shorten_names
from stages.reporting.results.predictions import Predictions
from stages.reporting.results.scores import confusion, wilson

MAX_CLASSES = 20  # with more classes, the numbers in the confusion matrix are too small to read


def draw_steps(ax: Axes, steps: pd.DataFrame, column: str) -> None:
    ax.plot(range(len(steps)), steps[column], marker="o")
    ax.set_xticks(range(len(steps)), steps["step"], rotation=20, ha="right")
    ax.set_ylabel(column)
    values = steps[column].tolist()
    for x, y in enumerate(values):
        neighbours = values[max(x - 1, 0) : x + 2]
        # The number is written on the side of the point where the line does not pass.
        above = y >= sum(neighbours) / len(neighbours)
        ax.annotate(f"{y:.4f}", (x, y), textcoords="offset points", xytext=(0, 6 if above else -14), ha="center")
    ax.margins(0.15)


def draw_history(ax: Axes, history: pd.DataFrame, title: str) -> None:
    ax.plot(history["epoch"], history["train_loss"], marker="o", label="train")
    ax.plot(history["epoch"], history["valid_loss"], marker="o", label="valid")
    ax.set(title=title, xlabel="epoch", ylabel="loss")
    low, high = int(history["epoch"].min()), int(history["epoch"].max())
    ax.set_xlim(low - 0.3, high + 0.3)
    ax.set_xticks(range(low, high + 1, max(1, (high - low) // 8)))
    ax.legend()


def draw_rates(ax: Axes, rates: pd.DataFrame, title: str) -> None:
    """Draws the loss and the learning rate of every iteration."""
    ax.plot(rates["step"], rates["loss"], linewidth=0.6, alpha=0.4, color="C0")
    ax.plot(rates["step"], rates["loss"].ewm(alpha=0.1).mean(), color="C0", label="loss, smoothed")
    ax.set(title=title, xlabel="iteration", ylabel="loss")
    right = ax.twinx()
    right.plot(rates["step"], rates["lr"], color="C1", label="learning rate (right)")
    right.set_ylim(0)
    lines = [*ax.get_lines()[1:], *right.get_lines()]
    ax.legend(lines, [str(line.get_label()) for line in lines], loc="upper right")


def draw_range_test(ax: Axes, curve: pd.DataFrame, title: str, lrs: dict[str, float | None]) -> None:
    """Draws the curve of a range test, and marks the learning rates `lrs` with their names."""
    ax.plot(curve["lr"], curve["loss"], linewidth=0.6, alpha=0.4, color="C0")
    ax.plot(curve["lr"], curve["smoothed"], color="C0", label="loss, smoothed")
    for number, (name, lr) in enumerate(lrs.items(), start=1):
        if lr:
            ax.axvline(lr, color=f"C{number}", linestyle="--", label=f"{name} {lr:.3g}")
        elif lr is None:  # no rate was suggested; a rate of 0, which freezes the layer group, is not marked
            ax.plot([], [], " ", label=f"{name}: none")
    ax.set(title=title, xscale="log", xlabel="learning rate of the last layer group", ylabel="loss")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.set_ylim(0.9 * min(curve["smoothed"].min(), curve["loss"].min()), 1.2 * curve["smoothed"].max())
    ax.figure.legend(loc="outside lower center", ncols=3)  # type: ignore[call-arg, unused-ignore]


def draw_confusion(ax: Axes, predictions: Predictions) -> None:
    """Draws the confusion matrix. With more than MAX_CLASSES classes, the cells have colours but no counts."""
    matrix = confusion(predictions)
    ax.imshow(matrix, cmap="Blues")
    if len(matrix) <= MAX_CLASSES:
        ax.set_xticks(range(len(matrix)), shorten_names(predictions.classes), rotation=45, ha="right")
        ax.set_yticks(range(len(matrix)), shorten_names(predictions.classes))
        for (row, column), count in np.ndenumerate(matrix):
            dark = count > matrix.max() / 2
            ax.text(column, row, str(count), ha="center", va="center", color="white" if dark else "black")
    ax.set(xlabel="predicted", ylabel="actual")


def draw_calibration(ax: Axes, bins: pd.DataFrame) -> None:
    ax.plot([0, 1], [0, 1], color="C7", linestyle=":", label="perfectly calibrated")
    intervals = np.array(
        [wilson(round(share * n), n) for share, n in zip(bins["accuracy"], bins["count"], strict=True)]
    )
    error_bars = np.abs(intervals.T - bins["accuracy"].to_numpy())
    ax.errorbar(
        bins["confidence"], bins["accuracy"], error_bars, fmt="o", linewidth=1, label="observed, with 95 % interval"
    )
    for confidence, accuracy, count in zip(bins["confidence"], bins["accuracy"], bins["count"], strict=True):
        ax.annotate(f"{count:,}", (confidence, accuracy), textcoords="offset points", xytext=(5, 3))
    low = float(min(bins["confidence"].min(), intervals.min(), 0.5))
    ax.set(
        xlabel="predicted probability",
        ylabel="observed frequency",
        xlim=(low - 0.03, 1.03),
        ylim=(low - 0.03, 1.05),
    )
    ax.legend(loc="upper left")


def draw_sizes(ax: Axes, images: pd.DataFrame) -> None:
    for column, name in (("width", "width"), ("height", "height")):
        ax.hist(images[column], bins=40, alpha=0.6, label=name)
    ax.set(xlabel="px", ylabel="pictures")
    ax.legend()
