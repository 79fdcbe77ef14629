"""Writes the curve of a learning-rate range test as a table and as a figure."""

import json
from pathlib import Path

import pandas as pd
from matplotlib.ticker import FuncFormatter

from stages.reporting.figures.plots import figure
from stages.training.loop.lr_finder import suggest


def write_curve(curve: pd.DataFrame, title: str, folder: Path) -> None:
    """Writes curve.csv, curve.png and suggestion.json into `folder`."""
    suggestion = suggest(curve)
    curve.to_csv(folder / "curve.csv", index=False, float_format="%.6g")
    rounded = {name: value and float(f"{value:.3g}") for name, value in suggestion.items()}
    (folder / "suggestion.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")
    with figure(folder / "curve.png", title) as axes:
        axes.plot(curve["lr"], curve["loss"], color="0.8", label="loss")
        axes.plot(curve["lr"], curve["smoothed"], label="smoothed")
        if lr := suggestion["lr"]:
            axes.axvline(lr, color="tab:red", linestyle="--", label=f"suggested {lr:.1e}")
        axes.set(xscale="log", xlabel="learning rate of the last layer group", ylabel="loss")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))  # the default labels are mathtext
        axes.legend()
