"""`make bench`: figures of this project as ratios, each measured side by side in one run, into bench/results.json.

Usage: python -m bench [--rounds N] [--name NAME] [--set SECTION.KEY=VALUE ...] [PART ...]; parts: limits, reruns,
views, and versus (against fastai, which .venv-bench holds). `--set` says what pictures, if not the default ones,
`--name` their name in the results. docs/results.md shows medians and views, bench/RESULTS.md every round of the others.
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


def in_a_clone(part: str, rounds: int, changes: list[str]) -> tuple[str, dict[str, Any]]:
    """limits or reruns, in a clone where `dvc repro precompute` has run: the precision that it took, and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "-q", str(ROOT), folder], check=True)
        change(Path(folder), changes)
        seconds(Path(folder), "dvc", "repro", "-q", "precompute")
        precision = str(receipt(Path(folder), "precompute")["precision"])
        what = ingest_path(Path(folder)) if part == "limits" else folder
        command = [sys.executable, "-m", f"bench.{part}", what, str(rounds)]
        said = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, encoding="utf-8").stdout
        ratios: dict[str, list[float]] = json.loads(said.splitlines()[-1])
    return precision, {
        name: {"median": round(statistics.median(some), 3), "ratios": some} for name, some in ratios.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", default=PARTS, help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=3, help="of each part; of versus and views: folds")
    parser.add_argument("--name", default="default", help="of the pictures, in the results")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="params")
    args = parser.parse_args()
    if wrong := [part for part in args.parts if part not in PARTS]:
        parser.error(f"no part {', '.join(wrong)}: there are {', '.join(PARTS)}")
    os.environ.pop("UNFREEZE_HOME", None)  # what was remembered elsewhere would be no first run
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for part in args.parts:
        print(f"{part} {args.name}", flush=True)
        if part == "versus":
            precision, found = versus(str(FASTAI), args.rounds, args.set)
        elif part == "views":
            precision, found = views(args.rounds, args.set)
        else:
            precision, found = in_a_clone(part, args.rounds, args.set)
        machine = {"machine": platform.machine(), "cores": os.cpu_count(), "rounds": args.rounds}
        results[f"{part} {args.name} {precision}"] = found | {"measured on": machine}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
        tables.write(results)
    print(tables.rounds(results))


if __name__ == "__main__":
    main()
