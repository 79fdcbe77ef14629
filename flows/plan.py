"""What a run would do, and why: `python -m flows.plan [TARGET...]`. Starts no stage, needs no server, changes nothing.

A target is a stage, with those it depends on, or a dvc.yaml; see flows/pipeline/graph.py.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from dvc.exceptions import DvcException

from flows.errors import PipelineError
from flows.pages.table import first_lines, print_table
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.planning import Decision, PlanOptions, Verdict, make_plan

TARGETS_HELP = (
    "a stage, with what it depends on (split, pipelines/folds/dvc.yaml:split@0), or a dvc.yaml; default: dvc.yaml"
)
WORDS = {
    Verdict.UNCHANGED: "stay unchanged",
    Verdict.RESTORE: "be restored",
    Verdict.RUN: "run",
    Verdict.DEPENDS: "run, if those change",
}
COLOURS = {
    Verdict.UNCHANGED: "dim",
    Verdict.RESTORE: "cyan",
    Verdict.RUN: "bold yellow",
    Verdict.DEPENDS: "yellow",
}


def show(decisions: Sequence[Decision]) -> None:
    rows = []
    for one in decisions:
        seconds = "" if one.seconds is None else f"{one.seconds:,.1f} s"
        rows.append(((one.stage, WORDS[one.verdict], first_lines(one.why), seconds, one.pool), COLOURS[one.verdict]))
    print_table(("stage", "it would", "why", "last time", "pool"), rows, title="What a run would do")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.plan", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=TARGETS_HELP)
    parser.add_argument("-f", "--force", action="store_true", help="as if nothing were cached")
    parser.add_argument("--pull", action="store_true", help="outputs that are not here may come from the DVC remote")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    try:
        decisions = make_plan(open_repo(), arguments.targets, PlanOptions(arguments.force, arguments.pull))
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"plan: {' '.join(str(error).split())}")
    if arguments.json:
        print(json.dumps([asdict(one) for one in decisions], indent=2))
    else:
        show(decisions)


if __name__ == "__main__":
    main()
