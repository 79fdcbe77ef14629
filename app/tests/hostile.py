"""`python -m app.tests.hostile FOLDER`, in the main environment: a small project of HTML labels and names, run."""

import csv
import json
import sys
from pathlib import Path

import pandas as pd

from app.tests.hostile_names import LABELS, NAMED
from tests.conftest import CLASSES, make_project

assert set(LABELS) == set(CLASSES)


def rename(pictures: Path) -> None:
    """Renames the labels in labels.csv, and one picture."""
    with (pictures / "labels.csv").open(encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    (pictures / "train/red00.jpg").rename(pictures / f"train/{NAMED}.jpg")
    with (pictures / "labels.csv").open("w", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *([NAMED if a == "red00" else a, LABELS[b], c] for a, b, c in rows)])


def main(folder: Path) -> None:
    project = make_project(folder, shim=None)
    rename(folder / "pictures")
    (folder / "pictures/train/broken.jpg").write_bytes(b"no picture")
    project.params({"ingest.max_rejected_pct": 50})
    project.repro()
    valid = pd.read_parquet(folder / "data/tta/valid.parquet")
    said = valid[[f"plain:{label}" for label in sorted(LABELS.values())]].set_axis(sorted(LABELS.values()), axis=1)
    rows = zip(valid["id"], said.to_dict("records"), strict=True)
    (folder / "said.json").write_text(
        json.dumps([{"file": f"{name}.jpg", "said": one} for name, one in rows]), encoding="utf-8"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
