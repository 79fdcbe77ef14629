"""fetch: copy the default pictures from the installed package `elpv-dataset` into the csv layout.

Out:  data/raw/elpv: labels.csv (id, label, grade, probability, type), train/<id>.png
      2,624 grey 300 x 300 electroluminescence pictures of solar cells, rated by experts. CC BY-NC-SA 4.0.
      label: defective where probability >= 0.5, else functional. grade: the four probabilities as classes.
"""

import importlib.util
import shutil
from pathlib import Path

import pandas as pd

from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.stage import run


def fetch(package: Path, folder: Path) -> None:
    """Copy the package's pictures and translate its labels (path, probability, type; separated by blanks)."""
    table = pd.read_csv(package / "labels.csv", sep=r"\s+", names=["path", "probability", "type"])
    table["id"] = table["path"].map(lambda path: Path(path).stem)
    table["label"] = table["probability"].ge(0.5).map({True: "defective", False: "functional"})
    table["grade"] = table["probability"].map(lambda p: f"p{round(100 * p):03d}")
    (folder / "train").mkdir(parents=True)
    for path in table["path"]:
        shutil.copyfile(package / path, folder / "train" / Path(path).name)
    columns = ["id", "label", "grade", "probability", "type"]
    table.sort_values("id")[columns].to_csv(folder / "labels.csv", index=False, float_format="%.4f")


def main() -> None:
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise StageError(
            "the package elpv-dataset is not installed: `pip install elpv-dataset` for the default pictures, "
            "or point ingest.path at pictures of your own and run `dvc repro evaluate`"
        )
    with outputs(stage_folder("raw") / "elpv") as folder:
        fetch(Path(spec.origin).parent / "data", folder)


if __name__ == "__main__":
    run(main)
