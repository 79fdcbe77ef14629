"""What one revision holds: params, metrics, steps, curves, predictions, as far as git and DVC's cache have them."""

import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any

from dvc.api import DVCFileSystem
from ruamel.yaml import YAML

from flows.pipeline.changes import leaves

METRICS, STEPS, VALID = "data/evaluate/metrics.json", "data/evaluate/steps.csv", "data/tta/valid.parquet"
MEASURED_ON = "data/split/valid.csv"
FIRST_TASK = '"single_label"'  # of revisions before params.yaml named one
HEAD, AUGMENT, FULL = (f"data/{stage}" for stage in ("train_head", "augment", "train_full"))
CURVES = {  # title: file, column of x, column of y
    "Loss on valid, head": (f"{HEAD}/history.csv", "epoch", "valid_loss"),
    "Loss on valid, augmented": (f"{AUGMENT}/history.csv", "epoch", "valid_loss"),
    "Loss on valid, all layers": (f"{FULL}/history.csv", "epoch", "valid_loss"),
    "Learning rate, all layers": (f"{FULL}/rates.csv", "step", "lr"),
}
Points = list[tuple[float, float]]


@dataclass
class Result:
    """`predicted`: by a validation picture's id its label and the predicted one (TTA). `missing`: files that are in
    neither git nor DVC's cache. `measured_on`: the hash of the validation pictures and labels; empty where dvc.lock
    has none."""

    name: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    steps: list[dict[str, str]] = field(default_factory=list)
    curves: dict[str, Points] = field(default_factory=dict)
    predicted: dict[str, tuple[str, str]] | None = None
    missing: list[str] = field(default_factory=list)
    measured_on: str = ""


def read_result(name: str, rev: str | None, project_folder: str) -> Result:
    """`rev` None: the workspace. `project_folder`: where the project lies in its repository, empty at the top.

    Raises DVC's RevError: there is no such revision.
    """
    # of a revision the file system is that of the whole repository, in which the project may be a folder
    folder, result = f"/{project_folder}" if rev else "/", Result(name)
    files = DVCFileSystem(rev=rev, subrepos=True)

    def read(path: str) -> bytes:
        try:
            content: bytes = files.read_bytes(f"{folder}{path}")
        except Exception:  # each of DVC's storages raises its own where it has nothing
            result.missing.append(path)
            return b""
        return content

    try:
        result.params = flat(YAML(typ="safe").load(read("params.yaml").decode()) or {})
        result.measured_on = locked_hash(YAML(typ="safe").load(read("dvc.lock").decode()) or {}, MEASURED_ON)
        numbers = json.loads(read(METRICS) or b"{}")
        result.metrics = {key: float(value) for key, value in numbers.items() if isinstance(value, int | float)}
        result.steps = rows(read(STEPS))
        tables = {path: rows(read(path)) for path, _, _ in CURVES.values()}
        for title, (path, x, y) in CURVES.items():
            result.curves[title] = [(float(row[x]), float(row[y])) for row in tables[path] if row.get(y)]
        task = json.loads(result.params.get("task", FIRST_TASK))
        result.predicted = predictions(read(VALID), str(task))
    finally:
        files.repo.close()
    return result


def flat(params: Any) -> dict[str, str]:
    """Dotted keys and their values as text."""
    return {key: json.dumps(leaf) for name, value in params.items() for key, leaf in leaves(value, name).items()}


def locked_hash(lock: Any, path: str) -> str:
    """Of an output in dvc.lock."""
    outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])]
    return next((str(out["md5"]) for out in outs if out["path"] == path and "md5" in out), "")


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def predictions(content: bytes, task: str) -> dict[str, tuple[str, str]] | None:
    """None: there are none, or of a task whose predictions are not compared one by one."""
    if not content or task not in DECODE:
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content)).to_pydict()
    return dict(zip(table["id"], zip(table["label"], DECODE[task](table), strict=True), strict=True))


def likeliest(table: dict[str, list[Any]]) -> list[str]:
    """The class with the highest of the columns `tta:<class>`."""
    classes = [column for column in table if column.startswith("tta:")]
    best = [max(range(len(classes)), key=row.__getitem__) for row in zip(*(table[c] for c in classes), strict=True)]
    return [classes[place].removeprefix("tta:") for place in best]


DECODE = {"single_label": likeliest}  # by `task` in params.yaml: what is predicted, from the columns of VALID
