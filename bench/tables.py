"""Writes the figures of bench/results.json as tables: the medians and the part views to docs/results.md, every round of
the other parts to bench/RESULTS.md."""

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SHORT, LONG = ROOT / "docs/results.md", ROOT / "bench/RESULTS.md"
BEGIN, END = "<!-- bench: python -m bench writes these tables -->\n", "<!-- end of bench -->\n"
VIEWS_BEGIN = "<!-- views: python -m bench views writes this table -->\n"
WHAT = {
    "head": "one epoch of the head; ours: `dvc repro train_head` from raw pictures",
    "second head": "the same; ours: a second experiment with another head rate",
    "full": "an epoch of full training",
    "tta": "TTA",
}
TITLES = {
    "versus": "fastai's seconds / ours: more is better",
    "limits": "the limit's seconds / ours: 1 is the limit",
    "reruns": "the rerun's seconds / those of the whole: less is better",
}


def write(results: dict[str, Any]) -> None:
    for path, begin, tables in shown(results):
        before, rest = path.read_text(encoding="utf-8").split(begin)
        path.write_text(before + begin + tables + END + rest.split(END, 1)[1], encoding="utf-8")


def shown(results: dict[str, Any]) -> list[tuple[Path, str, str]]:
    """Returns (file, the line above the tables, the tables)."""
    return [(SHORT, BEGIN, medians(results)), (SHORT, VIEWS_BEGIN, views(results)), (LONG, BEGIN, rounds(results))]


def split(key: str) -> tuple[str, str, str]:
    """Returns a run's part, the name of its pictures, and this project's precision."""
    part, _, rest = key.partition(" ")
    name, precision = rest.rsplit(" ", 1)
    return part, name, precision


def figures(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {what: one for what, one in run.items() if "ratios" in one}


def medians(results: dict[str, Any]) -> str:
    """Returns a table per part, with a row for each ratio and a column for each run."""
    lines: list[str] = []
    for part, title in TITLES.items():
        runs = {split(key)[1:]: figures(run) for key, run in sorted(results.items()) if split(key)[0] == part}
        lines += head([title, *(f"{name}, {precision}" for name, precision in runs)])
        for what in dict.fromkeys(what for run in runs.values() for what in run):
            cells = [f"{run[what]['median']:.2f}" if what in run else "" for run in runs.values()]
            lines.append(f"| {' | '.join([WHAT.get(what, what), *cells])} |")
    return "\n".join([*lines, "", ""])


def views(results: dict[str, Any]) -> str:
    """Returns the table of the part views, with means of the rounds."""
    lines = head(["pictures", "rounds", "views, epochs", "seconds", "each further run", "log loss", "accuracy"])
    for key, run in sorted(results.items()):
        part, name, precision = split(key)
        for what, one in run.items() if part == "views" else ():
            if "log_loss" in one:
                took, further, loss, accuracy = (
                    statistics.mean(one[column]) for column in ("seconds", "further_seconds", "log_loss", "accuracy")
                )
                cells = [f"{name}, {precision}", f"{len(one['seconds'])}", what]
                lines.append(f"| {' | '.join(cells)} | {took:.0f} | {further:.0f} | {loss:.3f} | {accuracy:.3f} |")
    return "\n".join([*lines, "", ""])


def rounds(results: dict[str, Any]) -> str:
    """Returns a table per part, with a row for each ratio and run."""
    lines: list[str] = []
    for part, title in TITLES.items():
        more = ["seconds, ours; fastai", "accuracy, log loss, ours; fastai"] if part == "versus" else []
        lines += head(["what", "pictures", "ours in", f"median of {title}", "all rounds", *more])
        for key in (key for key in results if split(key)[0] == part):
            lines += rows(key, results[key], bool(more))
    return "\n".join([*lines, "", ""])


def head(columns: list[str]) -> list[str]:
    return ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]


def rows(key: str, run: dict[str, Any], with_sides: bool) -> Iterator[str]:
    _, name, precision = split(key)
    for what, one in figures(run).items():
        every = ", ".join(f"{ratio:.2f}" for ratio in sorted(one["ratios"]))
        cells = [WHAT.get(what, what), name, precision, f"**{one['median']:.2f}**", every]
        if with_sides:
            cells += [sides(one, ["seconds"], 0), sides(one, ["accuracy", "log_loss"], 3)]
        yield f"| {' | '.join(cells)} |"


def sides(one: dict[str, Any], names: list[str], digits: int) -> str:
    """Returns the means of the rounds of both sides; an empty text if the results lack them."""
    if not all(name in one[side] for side in ("ours", "fastai") for name in names):
        return ""
    means = [[f"{statistics.mean(one[side][name]):.{digits}f}" for name in names] for side in ("ours", "fastai")]
    return "; ".join(", ".join(side) for side in means)
