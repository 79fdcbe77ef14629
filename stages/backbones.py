"""backbones: compare the recipe's results with several networks: `backbones NAME NAME ...`.

In:   data/backbones/<name>/{tta,evaluate,train_full}, the results of pipelines/backbones/dvc.yaml
Out:  data/backbones/backbones.csv: one row per network: backbone, n_valid, the metrics, parameters; backbones.png
Recipe: the fast.ai course's comparison of architectures, on one split of the pictures.
"""

import sys
from pathlib import Path

import pandas as pd

from stages.reporting.figures.plots import figures, shorten_names
from stages.reporting.results.side_by_side import as_table, n_parameters, read_runs
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.stage import run


def plot(rows: pd.DataFrame, path: Path) -> None:
    """Draws accuracy and log loss by number of parameters."""
    with figures(path, "Backbones (valid, TTA)", 2) as axes:
        for ax, column in zip(axes, ("accuracy_tta", "log_loss_tta"), strict=True):
            for name, (_, row) in zip(shorten_names(rows["backbone"]), rows.iterrows(), strict=True):
                ax.plot(row["parameters"] / 1e6, row[column], marker="o", linestyle="none", label=name)
            ax.set(xlabel="parameters, millions", ylabel=column)
            ax.margins(0.15)
            ax.legend()


def main() -> None:
    runs = read_runs(stage_folder("backbones"), sys.argv[1:])
    sizes = [n_parameters(result.folder / "train_full/model.safetensors") for result in runs]
    rows = as_table(runs, "backbone").assign(parameters=sizes)
    with outputs(stage_folder("backbones")) as folder:
        rows.to_csv(folder / "backbones.csv", index=False)
        plot(rows, folder / "backbones.png")
    print(rows[["backbone", "accuracy_tta", "log_loss_tta", "parameters"]].to_string(index=False))


if __name__ == "__main__":
    run(main, with_arguments=True)
