"""Runs the pipeline under Prefect: `python -m flows.run [TARGET...]`. flows/recipe.py explains the states.

The exit code is 0 only if every requested stage is up to date.
"""

import argparse
import sys
from typing import Any

from flows.errors import PipelineError
from flows.pages.table import escape_unencodable_characters
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import read_graph
from flows.plan import TARGETS_HELP
from flows.processes.server import find_server, set_default_settings
from flows.repair import repair


def parse() -> dict[str, Any]:
    """Returns the flow's parameters from the command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.run", description=__doc__)
    add = parser.add_argument
    add("stages", nargs="*", metavar="TARGET", help=TARGETS_HELP)
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as dvc exp run -S")
    add("-f", "--force", action="store_true", help="run every stage, even if its result is cached")
    add("--pull", action="store_true", help="fetch what other clones have computed from the DVC remote")
    add("--push", action="store_true", help="upload the results of this run to the DVC remote")
    add("--send", action="append", default=[], metavar="POOL", help="its stages run on workers; adds --pull and --push")
    return vars(parser.parse_args())


def main() -> None:
    parameters = parse()
    set_default_settings()
    escape_unencodable_characters()
    try:
        for line in repair():
            print(line)
        read_graph(open_repo(), parameters["stages"])  # finds a misspelled stage before a server is started
        find_server()
    except PipelineError as error:
        sys.exit(f"run: {' '.join(str(error).split())}")
    from flows.recipe import recipe  # imports Prefect, whose settings have to be set before

    state: Any = recipe(**parameters, return_state=True)
    print(state.message)
    sys.exit(0 if state.is_completed() else 1)


if __name__ == "__main__":
    main()
