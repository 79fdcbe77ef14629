"""Several results side by side, as one page: `python -m flows.compare [REV|EXPERIMENT ...] [--out compare.html]`.

Without names: the workspace, HEAD and all experiments made on it. What a result holds is read from git and from DVC's
cache or remote; outputs that are in neither are named on the page. The first result is what the others are compared to.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import dvc.api
from dvc.exceptions import DvcException
from jinja2 import Environment, FileSystemLoader

from flows.errors import PipelineError
from flows.pages.curves import chart
from flows.pages.result import CURVES, Result, read_result
from flows.pipeline.dvc_adapter import REVISION_ERRORS
from flows.sharing import clone

TEMPLATES = Path(__file__).parent / "pages/templates"
N_IDS = 12  # pictures named of each kind; their number is always shown
SMALLER = ("loss", "error", "brier", "ece")  # in a metric's name: the smaller the better
WORKSPACE = "workspace"
NO_METRIC = ("step", "epochs", "kept_epoch")  # of the columns of steps.csv


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.compare", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="REV", help="branches, commits, experiments, or workspace")
    parser.add_argument("--out", type=Path, default=Path("compare.html"))
    arguments = parser.parse_args()
    try:
        folder = clone.prefix()  # raises where git refuses to read here, for which DVC has no words
        results = [read_result(name, rev, folder) for name, rev in revisions(arguments.names)]
    except PipelineError as error:
        sys.exit(f"compare: {' '.join(str(error).split())}")
    except (DvcException, *REVISION_ERRORS) as error:
        sys.exit(f"compare: {' '.join(str(error).split())}: `dvc exp show` and `git branch -a` list what there is")
    arguments.out.write_text(page(results), encoding="utf-8")
    print(f"{len(results)} results: {arguments.out}")


def revisions(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """(name, revision); None stands for the workspace."""
    shown = dvc.api.exp_show()
    experiments = {row["Experiment"]: row["rev"] for row in shown if row.get("Experiment")}
    names = names or [WORKSPACE, "HEAD", *experiments]
    return [(name, None if name == WORKSPACE else experiments.get(name, name)) for name in names]


def page(results: Sequence[Result]) -> str:
    """HTML without scripts that loads nothing; the same for the same results."""
    first = results[0]
    return (
        templates()
        .get_template("compare.html.j2")
        .render(
            results=results,
            params=changed_params(results),
            metrics=metrics(results),
            steps=steps(results),
            measured=[column.replace("_", " ") for column in measured(results)],
            charts=[
                chart(title, [one.curves.get(title, []) for one in results])
                for title in CURVES
                if any(one.curves.get(title) for one in results)
            ],
            changes=[(one, changes(first, one)) for one in results[1:]],
            not_comparable=not_comparable(results),
            n_valid=len(first.predicted or ()),
            sign_test=sign_test,
        )
    )


def templates() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def changed_params(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """(key, value in each) where not all are equal; a result without that key has an empty text."""
    keys = sorted({key for one in results for key in one.params})
    rows = [(key, [one.params.get(key, "") for one in results]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def not_comparable(results: Sequence[Result]) -> list[str]:
    """Names of those measured on other pictures or labels than the first."""
    first = results[0].measured_on
    return [one.name for one in results if first and one.measured_on and one.measured_on != first]


def metrics(results: Sequence[Result]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """(metric, (value, difference to the first, whether it is the best) for each); those measured on other pictures
    have neither."""
    rows, others = [], not_comparable(results)
    for key in dict.fromkeys(key for one in results for key in one.metrics):
        values = [one.metrics.get(key) for one in results]
        comparable = [None if one.name in others else value for one, value in zip(results, values, strict=True)]
        known = [value for value in comparable if value is not None] or [0.0]
        best = min(known) if any(word in key for word in SMALLER) else max(known)
        is_same = len(set(known)) == 1
        cells = [
            cell(value, values[0] if n and mine is not None else None, mine == best and not is_same)
            for n, (value, mine) in enumerate(zip(values, comparable, strict=True))
        ]
        rows.append((key, cells))
    return rows


def cell(value: float | None, first: float | None, is_best: bool) -> tuple[str, str, bool]:
    if value is None:
        return "", "", False
    difference = "" if first is None else "=" if value == first else f"{value - first:+.4f}"
    return f"{value:.4f}", difference, is_best


def steps(results: Sequence[Result]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """(step, (a value for each of `measured`) in each); TTA is the last one of all."""
    names = sorted(dict.fromkeys(row["step"] for one in results for row in one.steps), key=step_order)
    columns = measured(results)
    table = [{row["step"]: tuple(row.get(c, "") for c in columns) for row in one.steps} for one in results]
    return [(name, [rows.get(name, ("",) * len(columns)) for rows in table]) for name in names]


def measured(results: Sequence[Result]) -> list[str]:
    """The columns of steps.csv that hold metrics: which ones, the task says."""
    columns = dict.fromkeys(column for one in results for row in one.steps for column in row)
    return [column for column in columns if column not in NO_METRIC]


def step_order(step: str) -> int:
    """The kept epoch comes after the training at all sizes, TTA last."""
    return 2 if step == "TTA" else int(step.startswith("kept: "))


def sign_test(won: int, lost: int) -> float:
    """Exact two-sided p-value: how often chance alone would split that many changed pictures at least as unevenly."""
    n, most = won + lost, max(won, lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(most, n + 1)) / float(2**n))


def changes(first: Result, other: Result) -> list[tuple[str, int, list[str]]] | None:
    """(kind, how many, the first few ids) of valid pictures that both have; None where one lacks its predictions."""
    if first.predicted is None or other.predicted is None:
        return None
    both = [id_ for id_ in first.predicted if id_ in other.predicted]
    kinds: dict[str, list[str]] = {"wrong before, right now": [], "right before, wrong now": [], "otherwise wrong": []}
    for id_ in both:
        (truth, before), (_, now) = first.predicted[id_], other.predicted[id_]
        if before != now:
            kind = "wrong before, right now" if now == truth else "otherwise wrong"
            kinds["right before, wrong now" if before == truth else kind].append(f"{id_}: {before} → {now}")
    found = [(kind, len(ids), ids[:N_IDS]) for kind, ids in kinds.items()]
    return [("pictures in both", len(both), []), *found]


if __name__ == "__main__":
    main()
