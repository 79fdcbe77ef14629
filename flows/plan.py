"""Shows what a run would do, and why: `python -m flows.plan [TARGET...]`. Needs no server and changes nothing.

A target is a stage, with the stages that it depends on, or a dvc.yaml; see flows/pipeline/graph.py.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict

from dvc.exceptions import DvcException

from flows.errors import PipelineError
from flows.pages.table import format_reasons, print_table
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.planning import Decision, PlanOptions, Verdict, make_plan

TARGETS_HELP = (
    "a stage (split, pipelines/folds/dvc.yaml:split@0), with the stages that it depends on, or a dvc.yaml; "
    "default: dvc.yaml"
)
PREDICTIONS = {  # what the table says that a stage "would"
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
    for decision in decisions:
        seconds = "" if decision.seconds is None else f"{decision.seconds:,.1f} s"
        reasons = format_reasons(decision.why)
        cells = (decision.stage, PREDICTIONS[decision.verdict], reasons, seconds, decision.pool)
        rows.append((cells, COLOURS[decision.verdict]))
    print_table(("stage", "it would", "why", "last time", "pool"), rows, title="What a run would do")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.plan", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=TARGETS_HELP)
    parser.add_argument("-f", "--force", action="store_true", help="plan as if nothing were cached")
    parser.add_argument("--pull", action="store_true", help="missing outputs may come from the DVC remote")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    try:
        decisions = make_plan(open_repo(), arguments.targets, PlanOptions(arguments.force, arguments.pull))
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"plan: {' '.join(str(error).split())}")
    if arguments.json:
        print(json.dumps([asdict(decision) for decision in decisions], indent=2))
    else:
        show(decisions)


if __name__ == "__main__":
    main()
