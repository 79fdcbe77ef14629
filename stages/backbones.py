"""backbones: what the recipe reaches with several networks: `backbones NAME NAME ...`.

In:   data/backbones/<name>/, as `variant` leaves it
Out:  data/backbones/backbones.csv: a row a network: backbone, n_valid, the metrics, parameters; backbones.png
Recipe: the course's comparison of architectures, on one split of the pictures.
"""

import sys
from pathlib import Path

import pandas as pd

from stages.reporting.figures.plots import figures, short
from stages.runtime.outputs import outputs
from stages.runtime.stage import run
from stages.runtime.variants import read, table

OUT = Path("data/backbones")


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Accuracy and log loss by size."""
    with figures(path, "Backbones (valid, TTA)", 2) as axes:
        for ax, column in zip(axes, ("accuracy_tta", "log_loss_tta"), strict=True):
            for name, (_, row) in zip(short(rows["backbone"]), rows.iterrows(), strict=True):
                ax.plot(row["parameters"] / 1e6, row[column], marker="o", linestyle="none", label=name)
            ax.set(xlabel="parameters, millions", ylabel=column)
            ax.margins(0.15)
            ax.legend()


def main() -> None:
    variants = read(OUT, sys.argv[1:])
    rows = table(variants, "backbone").assign(parameters=[one.about["parameters"] for one in variants])
    with outputs(OUT) as folder:
        rows.to_csv(folder / "backbones.csv", index=False)
        plot(rows, folder / "backbones.png")
    print(rows[["backbone", "accuracy_tta", "log_loss_tta", "parameters"]].to_string(index=False))


if __name__ == "__main__":
    run(main, with_arguments=True)
