"""Shows several results side by side on one page: `python -m flows.compare [REV|EXPERIMENT ...] [--out compare.html]`.

Without names it shows the workspace, HEAD and all experiments made on HEAD. The results are read from git and from
DVC's cache or remote; the page lists outputs that are missing there. All results are compared to the first one.
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
MAX_LISTED_IDS = 12  # The page lists so many pictures of each kind of change. Their number is always shown.
LOWER_IS_BETTER = ("loss", "error", "brier", "ece")  # A metric with one of these words in its name is best when low.
WORKSPACE = "workspace"
NON_METRIC_COLUMNS = ("step", "epochs", "kept_epoch")  # All other columns of steps.csv hold metrics.


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.compare", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="REV", help="branches, commits, experiments, or workspace")
    parser.add_argument("--out", type=Path, default=Path("compare.html"))
    arguments = parser.parse_args()
    try:
        # This check comes before the first call of DVC, whose message does not say why git cannot read the clone.
        folder = clone.project_folder()
        results = [read_result(name, rev, folder) for name, rev in revisions(arguments.names)]
    except PipelineError as error:
        sys.exit(f"compare: {' '.join(str(error).split())}")
    except (DvcException, *REVISION_ERRORS) as error:
        hint = "`dvc exp show` and `git branch -a` list the names that can be compared"
        sys.exit(f"compare: {' '.join(str(error).split())}: {hint}")
    arguments.out.write_text(page(results), encoding="utf-8")
    print(f"{len(results)} results: {arguments.out}")


def revisions(names: Sequence[str]) -> list[tuple[str, str | None]]:
    """Returns a (name, revision) tuple for each result. The revision None stands for the workspace."""
    rows = dvc.api.exp_show()
    experiments = {row["Experiment"]: row["rev"] for row in rows if row.get("Experiment")}
    names = names or [WORKSPACE, "HEAD", *experiments]
    return [(name, None if name == WORKSPACE else experiments.get(name, name)) for name in names]


def page(results: Sequence[Result]) -> str:
    """Returns the page: HTML without scripts or external files. Equal results give an identical page."""
    first = results[0]
    return (
        templates()
        .get_template("compare.html.j2")
        .render(
            results=results,
            params=changed_params(results),
            metrics=metrics(results),
            steps=steps(results),
            metric_columns=[column.replace("_", " ") for column in metric_columns(results)],
            charts=[
                chart(title, [result.curves.get(title, []) for result in results])
                for title in CURVES
                if any(result.curves.get(title) for result in results)
            ],
            changes=[(result, changes(first, result)) for result in results[1:]],
            not_comparable=not_comparable(results),
            n_valid=len(first.predicted or ()),
            sign_test=sign_test,
        )
    )


def templates() -> Environment:
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)


def changed_params(results: Sequence[Result]) -> list[tuple[str, list[str]]]:
    """Returns (key, values) for each param whose values differ: one text per result, empty if it lacks the key."""
    keys = sorted({key for result in results for key in result.params})
    rows = [(key, [result.params.get(key, "") for result in results]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def not_comparable(results: Sequence[Result]) -> list[str]:
    """Returns the names of the results that were measured on other validation pictures or labels than the first."""
    first = results[0].valid_md5
    return [result.name for result in results if first and result.valid_md5 and result.valid_md5 != first]


def metrics(results: Sequence[Result]) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """Returns for each metric one cell per result: its value, the difference to the first result, and whether it is
    the best. Results measured on other pictures get no difference and are never marked best."""
    rows, excluded = [], not_comparable(results)
    for key in dict.fromkeys(key for result in results for key in result.metrics):
        values = [result.metrics.get(key) for result in results]
        comparable_values = [
            None if result.name in excluded else value for result, value in zip(results, values, strict=True)
        ]
        numbers = [value for value in comparable_values if value is not None] or [0.0]
        best = min(numbers) if any(word in key for word in LOWER_IS_BETTER) else max(numbers)
        are_equal = len(set(numbers)) == 1
        cells = [
            cell(
                value,
                first=values[0] if i and comparable_value is not None else None,
                is_best=comparable_value == best and not are_equal,
            )
            for i, (value, comparable_value) in enumerate(zip(values, comparable_values, strict=True))
        ]
        rows.append((key, cells))
    return rows


def cell(value: float | None, first: float | None, is_best: bool) -> tuple[str, str, bool]:
    if value is None:
        return "", "", False
    difference = "" if first is None else "=" if value == first else f"{value - first:+.4f}"
    return f"{value:.4f}", difference, is_best


def steps(results: Sequence[Result]) -> list[tuple[str, list[tuple[str, ...]]]]:
    """Returns, for each step, one tuple per result with the values of the `metric_columns`. TTA comes last."""
    names = sorted(dict.fromkeys(row["step"] for result in results for row in result.steps), key=step_order)
    columns = metric_columns(results)
    table = [{row["step"]: tuple(row.get(c, "") for c in columns) for row in result.steps} for result in results]
    return [(name, [rows.get(name, ("",) * len(columns)) for rows in table]) for name in names]


def metric_columns(results: Sequence[Result]) -> list[str]:
    """Returns the columns of steps.csv that hold metrics. They depend on the task."""
    columns = dict.fromkeys(column for result in results for row in result.steps for column in row)
    return [column for column in columns if column not in NON_METRIC_COLUMNS]


def step_order(step: str) -> int:
    """Returns a sort key: the row `kept: epoch N` comes after the rows of all picture sizes, and TTA comes last."""
    return 2 if step == "TTA" else int(step.startswith("kept: "))


def sign_test(won: int, lost: int) -> float:
    """Returns the exact two-sided p-value: how often chance alone would split so many changed pictures at least as
    unevenly."""
    n, larger = won + lost, max(won, lost)
    return min(1.0, 2 * sum(math.comb(n, k) for k in range(larger, n + 1)) / float(2**n))


def changes(first: Result, other: Result) -> list[tuple[str, int, list[str]]] | None:
    """Returns (kind of change, number of pictures, the first few ids) for the validation pictures that both results
    have; None if a result lacks its predictions."""
    if first.predicted is None or other.predicted is None:
        return None
    both = [id_ for id_ in first.predicted if id_ in other.predicted]
    wrong_twice = "wrong before and now, with different classes"
    kinds: dict[str, list[str]] = {"wrong before, right now": [], "right before, wrong now": [], wrong_twice: []}
    for id_ in both:
        (truth, before), (_, now) = first.predicted[id_], other.predicted[id_]
        if before != now:
            kind = "wrong before, right now" if now == truth else wrong_twice
            kinds["right before, wrong now" if before == truth else kind].append(f"{id_}: {before} → {now}")
    counts = [(kind, len(ids), ids[:MAX_LISTED_IDS]) for kind, ids in kinds.items()]
    return [("pictures in both", len(both), []), *counts]


if __name__ == "__main__":
    main()
