"""`make bench`: figures of this project as ratios, each measured side by side in one run, into bench/results.json.

Usage: python -m bench [--rounds N] [--name NAME] [--set SECTION.KEY=VALUE ...] [PART ...]; parts: limits, reruns, and
versus (against fastai, which .venv-bench holds). `--set` says what pictures, if not the default ones, `--name` their
name in the results. README.md shows them as tables.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.reruns import change, ingest_path, receipt, seconds
from bench.versus import ROOT, versus

RESULTS, README = ROOT / "bench/results.json", ROOT / "README.md"
FASTAI = ROOT / ".venv-bench/bin/python"
BEGIN, END = "<!-- bench: python -m bench writes these tables -->\n", "<!-- end of bench -->\n"
WHAT = {
    "head": "one epoch of the head; ours: `dvc repro train_head` from raw pictures",
    "second head": "the same; ours: a second experiment with another head rate",
    "full": "an epoch of full training",
    "tta": "TTA",
}
PARTS = {
    "versus": (
        "fastai's seconds / ours: more is better",
        ["seconds, ours; fastai", "accuracy, log loss, ours; fastai"],
    ),
    "limits": ("the limit's seconds / ours: 1 is the limit", []),
    "reruns": ("the rerun's seconds / those of the whole: less is better", []),
}


def in_a_clone(part: str, rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """limits or reruns, in a clone where `dvc repro precompute` has run: the precision that it took, and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        change(Path(folder), changes)
        seconds(Path(folder), "dvc", "repro", "-q", "precompute")
        precision = str(receipt(Path(folder), "precompute")["precision"])
        what = ingest_path(Path(folder)) if part == "limits" else folder
        command = [sys.executable, "-m", f"bench.{part}", what, str(rounds)]
        said = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout
        ratios: dict[str, list[float]] = json.loads(said.splitlines()[-1])
    return precision, {
        name: {"median": round(statistics.median(some), 3), "ratios": some} for name, some in ratios.items()
    }


def table(results: dict[str, Any]) -> str:
    """One for each part."""
    lines: list[str] = []
    for part, (title, more) in PARTS.items():
        columns = ["what", "pictures", "ours in", f"median of {title}", "all rounds", *more]
        lines += ["", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [line for key in results if key.startswith(f"{part} ") for line in rows(key, results[key], bool(more))]
    return "\n".join([*lines, "", ""])


def rows(key: str, figures: dict[str, Any], with_sides: bool) -> Iterator[str]:
    """Of one run: `key` is "part name precision"."""
    name, precision = key.partition(" ")[2].rsplit(" ", 1)
    for what, one in figures.items():
        if "ratios" not in one:
            continue
        every = ", ".join(f"{ratio:.2f}" for ratio in sorted(one["ratios"]))
        cells = [WHAT.get(what, what), name, precision, f"**{one['median']:.2f}**", every]
        if with_sides:
            cells += [sides(one, ["seconds"], 0), sides(one, ["accuracy", "log_loss"], 3)]
        yield f"| {' | '.join(cells)} |"


def sides(one: dict[str, Any], names: list[str], digits: int) -> str:
    """Means of the rounds, each a fold where the split has folds; empty where there are none."""
    if not all(name in one[side] for side in ("ours", "fastai") for name in names):
        return ""
    means = [[f"{statistics.mean(one[side][name]):.{digits}f}" for name in names] for side in ("ours", "fastai")]
    return "; ".join(", ".join(side) for side in means)


def write(results: dict[str, Any]) -> None:
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    before, rest = README.read_text().split(BEGIN)
    README.write_text(before + BEGIN + table(results) + END + rest.split(END)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", default=["limits", "reruns", "versus"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--name", default="default")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for part in args.parts:
        print(f"{part} {args.name}", flush=True)
        precision, found = (
            versus(str(FASTAI), args.rounds, args.set) if part == "versus" else in_a_clone(part, args.rounds, args.set)
        )
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "rounds": args.rounds}
        results[f"{part} {args.name} {precision}"] = found | {"measured on": machine}
        write(results)
    print(table(results))


if __name__ == "__main__":
    main()
