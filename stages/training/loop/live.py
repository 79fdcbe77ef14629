"""Live curves of a training, in .unfreeze/live/<stage>/, or in .unfreeze/live/<root>/<stage>/ for another root.

The curves are not an output of the stage. Each curve is a file, plots/metrics/*.tsv, with a column `step` (the number
of an epoch or of an iteration) and a column of values; metrics.json contains the latest values. This is DVCLive's
layout, which DVC, its extension for VS Code and `python -m flows.live` read. A training that resumes from a checkpoint
rewrites the files from its history, so that no row occurs twice. UNFREEZE_LIVE=off turns the curves off.
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
UNPLOTTED_COLUMNS = ("epoch", "size_px", "kept")  # These columns of history.csv have no curve.
POINTS_PER_EPOCH = 20  # The curves of loss and learning rate have about this many points in each epoch.
Point = tuple[int, float]


class CurveFiles:
    """The files of one training. Creating this object deletes the files of an earlier training. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.latest = folder, dict[str, Any]()
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(folder / "plots", ignore_errors=True)
        (folder / "metrics.json").unlink(missing_ok=True)

    def add(self, name: str, points: list[Point]) -> None:
        """Append points to a curve. A slash in the curve's name makes a folder."""
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
        """Write metrics.json atomically, because other programs may read it at the same time."""
        new = self.folder / "metrics.json.tmp"
        new.write_text(json.dumps(self.latest, indent=4) + "\n", encoding="utf-8")
        new.replace(self.folder / "metrics.json")


class Curves:
    """The curves of one training. The first OSError is printed and ends the drawing, but not the training."""

    def __init__(self, stage: str, history: History, n_batches: int) -> None:
        self.history, self.interval = history, max(n_batches // POINTS_PER_EPOCH, 1)
        self.n_iterations = self.n_epochs = 0  # that are drawn
        self.files: CurveFiles | None = None
        if os.environ.get("UNFREEZE_LIVE") != "off":
            self._try(lambda: setattr(self, "files", CurveFiles(FOLDER / run_name(stage))))
            self.draw()

    def draw(self) -> None:
        """Add the rows of the history that are not drawn yet."""
        if self.files is not None:
            files = self.files
            self._try(lambda: self._draw(files))

    def after_batch(self) -> None:
        """Call this after each batch. Draws every few batches."""
        if len(self.history.iterations) - self.n_iterations >= self.interval:
            self.draw()

    def _draw(self, files: CurveFiles) -> None:
        iterations = self.history.iterations[self.n_iterations :: self.interval]
        epochs = self.history.epochs[self.n_epochs :]
        for column in ("loss", "lr"):
            files.add(f"batch/{column}", [(int(row["step"]), row[column]) for row in iterations])
        columns = dict.fromkeys(column for row in epochs for column in row if column not in UNPLOTTED_COLUMNS)
        for column in columns:
            files.add(column, [(int(row["epoch"]), row[column]) for row in epochs if column in row])
        self.n_iterations += len(iterations) * self.interval
        self.n_epochs = len(self.history.epochs)
        files.write_latest()

    def _try(self, write: Callable[[], None]) -> None:
        try:
            write()
        except OSError as error:
            self.files = None
            print(f"no live curves: {type(error).__name__}: {error}", file=sys.stderr)
