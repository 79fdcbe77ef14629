"""Shows the curves of the stages that train, on a page that reloads itself: `python -m flows.live`, until Ctrl-C.

It reads the curves that stages write below .unfreeze while they train, including those of folds, of other runs and of
queued experiments, and writes .unfreeze/live/index.html.
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
from flows.sharing.clone import project_folder

STATE_FOLDER = Path(".unfreeze")
PAGE = STATE_FOLDER / "live/index.html"
EXPERIMENTS = Path(".dvc/tmp/exps")  # DVC makes a folder in it for each experiment of its queue
MAX_STAGES = 12
CHARTS = {  # the title of each chart: the metrics that it shows
    "train_loss, dashed valid_loss, by epoch": ("train_loss", "valid_loss"),
    "accuracy, by epoch": ("accuracy",),
    "loss of a batch, by iteration": ("batch/loss",),
    "lr of the head, by iteration": ("batch/lr",),
}


@dataclass(frozen=True)
class Stage:
    """`latest`: name and text of each metric's last value."""

    name: str
    latest: list[tuple[str, str]]
    charts: list[Chart]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.live", description=__doc__)
    parser.add_argument("--once", action="store_true", help="write the page and end")
    once = parser.parse_args().once
    try:
        folder = project_folder()
    except PipelineError:  # without git there are no experiments
        folder = ""
    print(f"{PAGE.absolute().as_uri()}", flush=True)
    with suppress(KeyboardInterrupt):
        write_page(folder)
        while not once:
            time.sleep(2)
            write_page(folder)


def write_page(project_folder: str) -> None:
    """Replaces the page at once, because a browser may read it at any moment.

    `project_folder`: the project's folder in the git repository, with a slash at the end; empty for the top folder.
    """
    in_experiments = f"*/{escape(project_folder)}{STATE_FOLDER}/live/**/metrics.json"
    paths = [*STATE_FOLDER.glob("live/**/metrics.json"), *EXPERIMENTS.glob(in_experiments)]
    newest = sorted(paths, key=lambda path: (-modified_ns(path), path))[:MAX_STAGES]
    new = PAGE.with_suffix(".tmp")
    new.parent.mkdir(parents=True, exist_ok=True)
    stages = [read_stage(path.parent, project_folder) for path in newest]
    new.write_text(templates().get_template("live.html.j2").render(stages=stages), encoding="utf-8")
    new.replace(PAGE)


def modified_ns(path: Path) -> int:
    with suppress(OSError):  # the file has just been removed
        return path.stat().st_mtime_ns
    return 0


def read_stage(folder: Path, project_folder: str) -> Stage:
    name = folder.as_posix().replace(f"/{project_folder}.unfreeze/live/", ": ").replace("/.unfreeze/live/", ": ")
    name = name.removeprefix(f"{STATE_FOLDER}/").removeprefix("live/")
    metrics: dict[str, object] = {}
    with suppress(ValueError, OSError):  # the file is just being written, or has been removed
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    latest = [(metric, f"{value:.4f}") for metric, value in metrics.items() if isinstance(value, float)]
    charts = [chart(title, [points(folder, metric) for metric in shown]) for title, shown in CHARTS.items()]
    return Stage(name.replace(f"{EXPERIMENTS}/", "queued "), latest, charts)


def points(folder: Path, metric: str) -> list[tuple[float, float]]:
    path = folder / f"plots/metrics/{metric}.tsv"
    if not path.exists():
        return []
    with path.open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter="\t") if len(row) == 2]
    return [parsed for row in rows if (parsed := parse_point(*row))]


def parse_point(iteration: str, value: str) -> tuple[float, float] | None:
    """Returns None for the header, for a row that is just being written, and for a loss that is not finite."""
    with suppress(ValueError):
        point = float(iteration), float(value)
        return point if all(map(math.isfinite, point)) else None
    return None


if __name__ == "__main__":
    main()
