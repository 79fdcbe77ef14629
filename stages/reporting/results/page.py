"""The report as one HTML file: charts, tables and pictures are embedded; no script, no downloads."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from stages.reporting.results import result_plots
from stages.reporting.results.galleries import MAX_CLASSES, Gallery
from stages.reporting.results.predictions import Predictions
from stages.reporting.results.scores import calibration, confusion, mean_interval, most_confused, wilson
from stages.reporting.results.svg import drawing

TEMPLATE = Path(__file__).with_name("report.html.j2")
STYLE = Path(__file__).with_name("report.css")
PARTS = ("train", "valid", "test")
N_CONFUSED, N_REASONS, MAX_LISTED = 15, 12, 2000


@dataclass(frozen=True)
class RangeTest:
    """The curve of a range test. `suggested_lr` is None if the curve never falls."""

    curve: pd.DataFrame
    suggested_lr: float | None


@dataclass(frozen=True)
class Facts:
    """The content of the page. Tables are as the stages wrote them; `sizes` are the numbers of rows of the parts."""

    predictions: Predictions
    metrics: dict[str, float]
    steps: pd.DataFrame
    classes: pd.DataFrame
    galleries: list[Gallery]
    histories: dict[str, pd.DataFrame]
    rates: dict[str, pd.DataFrame]
    range_tests: dict[str, RangeTest]
    images: pd.DataFrame
    sizes: dict[str, int]
    rejected: pd.DataFrame
    duplicates: pd.DataFrame
    duplicate_pairs: list[dict[str, Any]]
    receipts: list[dict[str, Any]]
    params: dict[str, Any]
    about: dict[str, Any]
    versions: dict[str, str]


def read_range_test(folder: Path) -> RangeTest:
    suggested_lr = json.loads((folder / "suggestion.json").read_text(encoding="utf-8"))["lr"]
    return RangeTest(pd.read_csv(folder / "curve.csv"), suggested_lr)


def chart(draw_on: Callable[[Axes], None]) -> Markup:
    with drawing() as (ax, result):
        draw_on(ax)
    return result.svg


def charts(facts: Facts) -> dict[str, list[Markup]]:
    used_lrs = {"lr_find": facts.params["train_head"]["lr"], "unfreeze": facts.params["train_full"]["lrs"][-1]}
    bins, _ = calibration(facts.predictions)
    return {
        "steps": [
            chart(lambda ax, column=column: result_plots.draw_steps(ax, facts.steps, column))  # type: ignore[misc]
            for column in facts.predictions.task.main_metrics
        ],
        "range_tests": [
            chart(
                lambda ax, name=name, test=test: result_plots.draw_range_test(  # type: ignore[misc]
                    ax, test.curve, name, {"suggested": test.suggested_lr, "in use": used_lrs[name]}
                )
            )
            for name, test in facts.range_tests.items()
        ],
        "trainings": [
            chart(lambda ax, name=name, draw_on=draw_on, table=table[name]: draw_on(ax, table, name))  # type: ignore[misc]
            for name in facts.histories
            for draw_on, table in ((result_plots.draw_rates, facts.rates), (result_plots.draw_history, facts.histories))
        ],
        "calibration": [chart(lambda ax: result_plots.draw_calibration(ax, bins))],
        "sizes": [chart(lambda ax: result_plots.draw_sizes(ax, facts.images))],
    }


def summary(facts: Facts) -> dict[str, Any]:
    """Returns the numbers of the first sentence of the page, with their 95 % intervals."""
    predictions, seed = facts.predictions, facts.params["seed"]
    n, n_right = len(predictions.actual), int(predictions.correct.sum())
    counts = pd.Series(predictions.actual).value_counts()
    return {
        "n": n,
        "n_right": n_right,
        "accuracy": wilson(n_right, n),
        "log_loss": mean_interval(predictions.losses, seed),
        "most_common": predictions.classes[int(counts.index[0])],
        "most_common_share": predictions.task.baselines(predictions.actual)["accuracy"],
        "calibration_error": calibration(predictions)[1],
    }


def class_counts(images: pd.DataFrame) -> pd.DataFrame:
    """Returns a table with the columns label and pictures, the most common class first. Test pictures do not count."""
    counts = images.loc[images["part"] != "test", "label"].value_counts(sort=False).sort_index()
    return counts.sort_values(ascending=False, kind="stable").rename_axis("label").reset_index(name="pictures")


def render(facts: Facts) -> str:
    matrix = confusion(facts.predictions)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE.name).render(
        **{name: getattr(facts, name) for name in Facts.__dataclass_fields__},
        summary=summary(facts),
        charts=charts(facts),
        confusion=matrix.tolist() if len(matrix) <= result_plots.MAX_CLASSES else None,
        confused=most_confused(facts.predictions, N_CONFUSED),
        counts=class_counts(facts.images),
        reasons=Counter(sorted(facts.rejected["reason"])).most_common(N_REASONS),
        n_reasons=facts.rejected["reason"].nunique(),
        name=Path(facts.params["ingest"]["path"]).name,
        most_listed=MAX_LISTED,
        most_classes=MAX_CLASSES,
        yaml_lines=list(flatten(facts.params)),
        style=Markup(STYLE.read_text(encoding="utf-8")),  # noqa: S704 (our own file)
    )


def flatten(params: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted key, value as JSON) of every param; an absolute path is reduced to its last part."""
    for key, value in params.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            shown = Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value
            yield f"{prefix}{key}", json.dumps(shown, default=str)
