"""Compares the time of a rerun with that of a full run, by real `dvc repro`, including the start-up of every stage.

Usage: python -m bench.reruns PROJECT [ROUNDS]. PROJECT is a clone whose `dvc repro precompute` has run on pictures in
the csv layout. The clone is changed: it gets a copy of the pictures, and new pictures are added to the copy.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from ruamel.yaml import YAML

N_STAGES = 11
PER_PICTURE = ("resize", "precompute")


def seconds(folder: Path, *command: str, **environment: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, env=os.environ | environment, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def receipt(project: Path, stage: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((project / f".unfreeze/receipts/{stage}.json").read_text(encoding="utf-8"))
    return found


def ingest_path(project: Path) -> str:
    return str(YAML(typ="safe").load(project / "params.yaml")["ingest"]["path"])


def change(project: Path, changes: list[str]) -> None:
    yaml, path = YAML(), project / "params.yaml"
    params = yaml.load(path)
    for key, _, value in (change.partition("=") for change in changes):
        section, _, name = key.partition(".")
        params[section][name] = yaml.load(value)
    yaml.dump(params, path)


def empty_pipeline(folder: Path) -> Path:
    """Creates a pipeline of `N_STAGES` stages in a row that copy one line, and runs it."""
    stages = {f"stage{i}": {"cmd": f"cp {i} {i + 1}", "deps": [str(i)], "outs": [str(i + 1)]} for i in range(N_STAGES)}
    (folder / "0").write_text("line\n", encoding="utf-8")
    YAML().dump({"stages": stages}, folder / "dvc.yaml")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["dvc", "repro", "-q"]):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def add(pictures: Path, n: int, rng: np.random.Generator) -> None:
    """Adds `n` labelled pictures: mirrored copies of existing pictures, with eight pixels changed."""
    with (pictures / "labels.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = list(csv.reader(file))
    id_column = header.index("id")
    known = {path.stem: path for path in (pictures / "train").rglob("*") if path.is_file()}
    for row in [list(rows[i]) for i in rng.choice(len(rows), n, replace=False)]:
        source, new = known[Path(row[id_column]).stem], f"new{rng.integers(2**60):x}"
        with Image.open(source) as image:
            mirrored = ImageOps.mirror(image.convert("RGB"))
        for x, y in rng.integers(min(mirrored.size), size=(8, 2)):  # the same source may be drawn again
            mirrored.putpixel((int(x), int(y)), tuple(int(value) for value in rng.integers(256, size=3)))
        mirrored.save(pictures / "train" / f"{new}.png")
        row[id_column] = new
        rows.append(row)
    with (pictures / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def add_and_rerun(project: Path, pictures: Path, n: int, rng: np.random.Generator) -> dict[str, float]:
    add(pictures, n, rng)
    took = seconds(project, "dvc", "repro", "precompute")
    receipts = [receipt(project, stage) for stage in PER_PICTURE]
    if any(found["computed"] != n for found in receipts):
        raise RuntimeError(f"{n} pictures were added: {receipts}")
    return {"seconds": took, "stages": sum(found["seconds"] for found in receipts)}


def full_run(project: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as home:
        took = seconds(project, "dvc", "repro", "--force", "precompute", UNFREEZE_HOME=home)
    return {"seconds": took, "stages": sum(receipt(project, stage)["seconds"] for stage in PER_PICTURE)}


def main() -> None:
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    project, rounds = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    pictures, rng = project / "pictures", np.random.default_rng(0)
    # a copy, because in the original folder the stage `fetch` would delete new pictures
    shutil.copytree(project / ingest_path(project), pictures)
    change(project, ["ingest.path=pictures", "train_full.cycle_len=1"])  # its metrics do not matter here
    seconds(project, "dvc", "repro", "-q")
    n = sum(1 for path in (pictures / "train").rglob("*") if path.is_file())
    results: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        results.setdefault(name, []).append(round(value, 3))

    with tempfile.TemporaryDirectory() as folder:
        empty = empty_pipeline(Path(folder))
        for _ in range(rounds):
            note(
                "nothing changed / an empty pipeline", seconds(project, "dvc", "repro") / seconds(empty, "dvc", "repro")
            )
    for number in range(rounds):
        full = full_run(project)
        for name, count in (("1 picture", 1), ("1 %", n // 100), ("10 %", n // 10)):
            rerun = add_and_rerun(project, pictures, count, rng)
            note(f"{name} added / full, `dvc repro precompute`", rerun["seconds"] / full["seconds"])
            note(f"{name} added / full, resize and precompute", rerun["stages"] / full["stages"])
        seconds(project, "dvc", "repro", "train_head")
        change(project, [f"train_head.lr=0.00{number + 2}"])
        took = seconds(project, "dvc", "repro", "train_head")
        note("another head rate, `dvc repro train_head` / full, `dvc repro precompute`", took / full["seconds"])
    print(json.dumps(results))


if __name__ == "__main__":
    main()
