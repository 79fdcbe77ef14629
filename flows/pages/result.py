"""Reads the results of one revision: params, metrics, steps, curves and predictions, if git or DVC's cache has them."""

import csv
import io
import json
from dataclasses import dataclass, field
from typing import Any

from dvc.api import DVCFileSystem
from ruamel.yaml import YAML

from flows.pipeline.changes import flatten

METRICS, STEPS, PREDICTIONS = "data/evaluate/metrics.json", "data/evaluate/steps.csv", "data/tta/valid.parquet"
VALID_TABLE = "data/split/valid.csv"
DEFAULT_TASK = '"single_label"'  # the task of old revisions, whose params.yaml does not name a task
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
    """The results of one revision.

    Args:
        predicted: for the id of each validation picture its label and the predicted label (with TTA).
        missing: files that are neither in git nor in DVC's cache.
        valid_md5: the hash of the table of validation pictures and labels; empty if dvc.lock has no hash.
    """

    name: str
    params: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    steps: list[dict[str, str]] = field(default_factory=list)
    curves: dict[str, Points] = field(default_factory=dict)
    predicted: dict[str, tuple[str, str]] | None = None
    missing: list[str] = field(default_factory=list)
    valid_md5: str = ""


def read_result(name: str, rev: str | None, project_folder: str) -> Result:
    """Returns what git and DVC have of a revision.

    Args:
        rev: None for the workspace.
        project_folder: the project's folder in its git repository, with a slash at the end; empty for the top folder.

    Raises DVC's RevError if there is no such revision.
    """
    # DVC's file system of a revision is the whole git repository; that of the workspace is the project's folder.
    folder, result = f"/{project_folder}" if rev else "/", Result(name)
    files = DVCFileSystem(rev=rev, subrepos=True)

    def read(path: str) -> bytes:
        try:
            content: bytes = files.read_bytes(f"{folder}{path}")
        except Exception:  # each of DVC's storages raises its own error for a missing file
            result.missing.append(path)
            return b""
        return content

    try:
        result.params = params_as_text(YAML(typ="safe").load(read("params.yaml").decode()) or {})
        result.valid_md5 = hash_in_lock(YAML(typ="safe").load(read("dvc.lock").decode()) or {}, VALID_TABLE)
        metrics = json.loads(read(METRICS) or b"{}")
        result.metrics = {key: float(value) for key, value in metrics.items() if isinstance(value, int | float)}
        result.steps = rows(read(STEPS))
        tables = {path: rows(read(path)) for path, _, _ in CURVES.values()}
        for title, (path, x, y) in CURVES.items():
            result.curves[title] = [(float(row[x]), float(row[y])) for row in tables[path] if row.get(y)]
        task = json.loads(result.params.get("task", DEFAULT_TASK))
        result.predicted = predictions(read(PREDICTIONS), str(task))
    finally:
        files.repo.close()
    return result


def params_as_text(params: Any) -> dict[str, str]:
    """Returns the values as JSON, by dotted keys."""
    return {key: json.dumps(leaf) for name, value in params.items() for key, leaf in flatten(value, name).items()}


def hash_in_lock(lock: Any, path: str) -> str:
    """Returns the md5 of an output in a dvc.lock; empty if the lock has none."""
    outs = [out for stage in lock.get("stages", {}).values() for out in stage.get("outs", [])]
    return next((str(out["md5"]) for out in outs if out["path"] == path and "md5" in out), "")


def rows(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode())))


def predictions(content: bytes, task: str) -> dict[str, tuple[str, str]] | None:
    """Returns the label and the predicted label by picture id; None if there are no predictions, or if the task's
    predictions cannot be compared one by one."""
    if not content or task not in DECODERS:
        return None
    import pyarrow.parquet as pq

    table = pq.read_table(io.BytesIO(content)).to_pydict()
    return dict(zip(table["id"], zip(table["label"], DECODERS[task](table), strict=True), strict=True))


def most_probable_classes(table: dict[str, list[Any]]) -> list[str]:
    """Returns for each row the class whose column `tta:<class>` has the highest value."""
    classes = [column for column in table if column.startswith("tta:")]
    rows = zip(*(table[column] for column in classes), strict=True)
    return [classes[max(range(len(classes)), key=row.__getitem__)].removeprefix("tta:") for row in rows]


# for each task of params.yaml the function that reads the predicted labels from the columns of PREDICTIONS
DECODERS = {"single_label": most_probable_classes}
