"""Curves of the stages that train, as a page that loads itself anew: `python -m flows.live`, until Ctrl-C.

It reads what stages that train write below .unfreeze, of folds, of other runs and of queued experiments too, and writes
.unfreeze/live/index.html.
"""

import argparse
import csv
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass
from glob import escape
from pathlib import Path

from flows.compare import templates
from flows.errors import PipelineError
from flows.pages.curves import Chart, chart
from flows.sharing.clone import prefix

HOME = Path(".unfreeze")
PAGE = HOME / "live/index.html"
QUEUED = Path(".dvc/tmp/exps")  # each experiment of DVC's queue has a folder there
MOST_STAGES = 12
TOGETHER = {
    "train_loss, dashed valid_loss, by epoch": ("train_loss", "valid_loss"),
    "accuracy, by epoch": ("accuracy",),
    "loss of a batch, by step": ("batch/loss",),
    "lr of the head, by step": ("batch/lr",),
}


@dataclass(frozen=True)
class Stage:
    name: str
    latest: list[tuple[str, str]]
    charts: list[Chart]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.live", description=__doc__)
    parser.add_argument("--once", action="store_true", help="write the page and end")
    once = parser.parse_args().once
    try:
        inside = prefix()
    except PipelineError:  # no git, so no experiments
        inside = ""
    print(f"{PAGE.absolute().as_uri()}", flush=True)
    with suppress(KeyboardInterrupt):
        write(inside)
        while not once:
            time.sleep(2)
            write(inside)


def write(inside: str) -> None:
    """Whole or not at all: a browser may read at any moment. `inside`: the project's folder in the git repository."""
    folders = [*HOME.glob("live/**/metrics.json"), *QUEUED.glob(f"*/{escape(inside)}.unfreeze/live/**/metrics.json")]
    newest = sorted(folders, key=lambda path: (-written(path), path))[:MOST_STAGES]
    new = PAGE.with_suffix(".tmp")
    new.parent.mkdir(parents=True, exist_ok=True)
    stages = [read(path.parent, inside) for path in newest]
    new.write_text(templates().get_template("live.html.j2").render(stages=stages), encoding="utf-8")
    new.replace(PAGE)


def written(path: Path) -> int:
    with suppress(OSError):  # just removed
        return path.stat().st_mtime_ns
    return 0


def read(folder: Path, inside: str) -> Stage:
    where = folder.as_posix().replace(f"/{inside}.unfreeze/live/", ": ").replace("/.unfreeze/live/", ": ")
    of = where.removeprefix(f"{HOME}/").removeprefix("live/")
    latest: dict[str, object] = {}
    with suppress(ValueError, OSError):  # just being written, or removed
        latest = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    shown = [(name, f"{value:.4f}") for name, value in latest.items() if isinstance(value, float)]
    charts = [chart(title, [points(folder, name) for name in names]) for title, names in TOGETHER.items()]
    return Stage(of.replace(f"{QUEUED}/", "queued "), shown, charts)


def points(folder: Path, name: str) -> list[tuple[float, float]]:
    path = folder / f"plots/metrics/{name}.tsv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if len(row) == 2]
    return [found for row in rows if (found := point(*row))]


def point(step: str, value: str) -> tuple[float, float] | None:
    """None for the header, for a row that is just being written, and for a loss that is no number."""
    with suppress(ValueError):
        found = float(step), float(value)
        return found if all(map(math.isfinite, found)) else None
    return None


if __name__ == "__main__":
    main()
