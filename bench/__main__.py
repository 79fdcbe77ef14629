"""`make bench`: measures ratios, with both sides of a ratio in the same run, and writes them to bench/results.json.

Usage: python -m bench [--rounds N] [--name NAME] [--set SECTION.KEY=VALUE ...] [PART ...]. The parts are limits,
reruns, views, and versus, which compares with fastai in the environment .venv-bench. `--set` can choose other pictures
than the default ones, and `--name` gives their name in the results. docs/results.md shows the medians and the part
views; bench/RESULTS.md shows every round of the other parts.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import tables
from bench.reruns import change, ingest_path, receipt, seconds
from bench.versus import ROOT, versus
from bench.views import views

PARTS = ["limits", "reruns", "views", "versus"]
RESULTS = ROOT / "bench/results.json"
FASTAI = ROOT / ".venv-bench/bin/python"


def measure_in_clone(part: str, rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """Measures limits or reruns in a clone where `dvc repro precompute` has run. Returns the precision of that run, and
    for each ratio its median and the value of each round."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        change(Path(folder), changes)
        seconds(Path(folder), "dvc", "repro", "-q", "precompute")
        precision = str(receipt(Path(folder), "precompute")["precision"])
        argument = ingest_path(Path(folder)) if part == "limits" else folder
        command = [sys.executable, "-m", f"bench.{part}", argument, str(rounds)]
        output = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
        ratios: dict[str, list[float]] = json.loads(output.splitlines()[-1])
    return precision, {
        name: {"median": round(statistics.median(values), 3), "ratios": values} for name, values in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each part; folds for versus and views")
    parser.add_argument("--name", default="default", help="name of the pictures in the results")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="params")
    args = parser.parse_args()
    if unknown := [part for part in args.parts if part not in PARTS]:
        parser.error(f"no part {', '.join(unknown)}: there are {', '.join(PARTS)}")
    os.environ.pop("UNFREEZE_HOME", None)  # a first run must not find results of earlier runs there
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in args.parts:
        print(f"{part} {args.name}", flush=True)
        if part == "versus":
            precision, figures = versus(str(FASTAI), args.rounds, args.set)
        elif part == "views":
            precision, figures = views(args.rounds, args.set)
        else:
            precision, figures = measure_in_clone(part, args.rounds, args.set)
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "rounds": args.rounds}
        results[f"{part} {args.name} {precision}"] = figures | {"measured on": machine}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        tables.write(results)
    print(tables.rounds(results))


if __name__ == "__main__":
    main()
