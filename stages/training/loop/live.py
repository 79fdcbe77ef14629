"""Live curves of a training, in .unfreeze/live/<stage>/, for another root in live/<root>/<stage>/: not an output.

Each curve is a file, plots/metrics/*.tsv (step and value); metrics.json has the latest values: DVCLive's layout, which
DVC, its extension for VS Code and `python -m flows.live` read. A training that resumes from a checkpoint rewrites the
files from its history, so that no row is there twice. UNFREEZE_LIVE=off switches the curves off.
"""

import csv
import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.runtime.folders import run_name
from stages.training.loop.history import History

FOLDER = Path(".unfreeze/live")
NO_CURVE = ("epoch", "size_px", "kept")  # columns of an epoch's row that are not drawn
POINTS = 20  # of the curves of loss and rate in each epoch
Point = tuple[int, float]


class CurveFiles:
    """The files of one training; earlier ones are deleted. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.latest = folder, dict[str, Any]()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "plots", ignore_errors=True)
        (folder / "metrics.json").unlink(missing_ok=True)

    def add(self, name: str, points: list[Point]) -> None:
        """Append points to a curve; a slash in the name makes a folder."""
        if not points:
            return
        path = self.folder / f"plots/metrics/{name}.tsv"
        path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            if is_new:
                writer.writerow(("step", path.stem))
            writer.writerows(points)
        *outer, last = name.split("/")
        values = self.latest
        for key in outer:
            values = values.setdefault(key, {})
        values[last] = points[-1][1]
        self.latest["step"] = points[-1][0]

    def write_latest(self) -> None:
        """Write metrics.json atomically: it may be read at the same time."""
        new = self.folder / "metrics.json.tmp"
        new.write_text(json.dumps(self.latest, indent=4) + "\n", encoding="utf-8")
        new.replace(self.folder / "metrics.json")


class Curves:
    """The curves of one training. The first OSError is printed and ends the drawing, but not the training."""

    def __init__(self, stage: str, history: History, n_batches: int) -> None:
        self.history, self.every = history, max(n_batches // POINTS, 1)
        self.n_steps = self.n_epochs = 0
        self.files: CurveFiles | None = None
        if os.environ.get("UNFREEZE_LIVE") != "off":
            self._try(lambda: setattr(self, "files", CurveFiles(FOLDER / run_name(stage))))
            self.draw()

    def draw(self) -> None:
        """Add the rows of the history that are not drawn yet."""
        if self.files is not None:
            files = self.files
            self._try(lambda: self._draw(files))

    def step(self) -> None:
        """Call after each batch; draws every few batches."""
        if len(self.history.steps) - self.n_steps >= self.every:
            self.draw()

    def _draw(self, files: CurveFiles) -> None:
        steps, epochs = self.history.steps[self.n_steps :: self.every], self.history.epochs[self.n_epochs :]
        for key in ("loss", "lr"):
            files.add(f"batch/{key}", [(int(row["step"]), row[key]) for row in steps])
        names = dict.fromkeys(key for row in epochs for key in row if key not in NO_CURVE)
        for key in names:
            files.add(key, [(int(row["epoch"]), row[key]) for row in epochs if key in row])
        self.n_steps += len(steps) * self.every
        self.n_epochs = len(self.history.epochs)
        files.write_latest()

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:  # only the curves are lost
            self.files = None
            print(f"no live curves: {type(error).__name__}: {error}", file=sys.stderr)
