"""Run the pipeline under Prefect: `python -m flows.run [TARGET...]`. See flows/recipe.py for what the states mean.

The exit code is 0 only if every stage asked for is up to date.
"""

import argparse
import sys
from typing import Any

from flows.errors import PipelineError
from flows.pages.table import print_any_text
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import read_graph
from flows.plan import TARGETS_HELP
from flows.processes.server import find_server, prefer
from flows.repair import repair


def parse() -> dict[str, Any]:
    """The flow's parameters."""
    parser = argparse.ArgumentParser(prog="python -m flows.run", description=__doc__)
    add = parser.add_argument
    add("stages", nargs="*", metavar="TARGET", help=TARGETS_HELP)
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as dvc exp run -S")
    add("-f", "--force", action="store_true", help="run every stage, whatever is cached")
    add("--pull", action="store_true", help="take from the DVC remote what other clones have made")
    add("--push", action="store_true", help="give to the DVC remote what this run makes")
    add("--send", action="append", default=[], metavar="POOL", help="its stages go to workers, with --pull and --push")
    return vars(parser.parse_args())


def main() -> None:
    parameters = parse()
    prefer()
    print_any_text()
    try:
        for line in repair():
            print(line)
        read_graph(open_repo(), parameters["stages"])  # a misspelled stage needs no server
        find_server()
    except PipelineError as error:
        sys.exit(f"run: {' '.join(str(error).split())}")
    from flows.recipe import recipe  # imports Prefect, for which `prefer` has set its defaults

    state: Any = recipe(**parameters, return_state=True)
    print(state.message)
    sys.exit(0 if state.is_completed() else 1)


if __name__ == "__main__":
    main()
