"""Run the pipeline under Prefect: `python -m flows.run [STAGE...]`. See flows/recipe.py for what the states mean.

The exit code is 0 only if every stage asked for is up to date.
"""

import argparse
import sys
from typing import Any

from flows.graph import PipelineError, open_repo, read_graph
from flows.mend import mend
from flows.server import find_server, prefer
from flows.table import print_any_text


def parse() -> dict[str, Any]:
    """The flow's parameters."""
    parser = argparse.ArgumentParser(prog="python -m flows.run", description=__doc__)
    add = parser.add_argument
    add("stages", nargs="*", metavar="STAGE", help="with what they depend on; default: all of dvc.yaml")
    add("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE", help="as dvc exp run -S")
    add("-f", "--force", action="store_true", help="run every stage, whatever is remembered")
    add("--pull", action="store_true", help="take from the DVC remote what others have made")
    add("--push", action="store_true", help="give to the DVC remote what this run makes")
    add("--send", action="append", default=[], metavar="POOL", help="its stages go to workers, with --pull and --push")
    return vars(parser.parse_args())


def main() -> None:
    parameters = parse()
    prefer()
    print_any_text()
    try:
        for line in mend():
            print(line)
        read_graph(open_repo(), parameters["stages"])  # a misspelled stage needs no server
        find_server()
    except PipelineError as error:
        sys.exit(f"run: {' '.join(str(error).split())}")
    from flows.recipe import recipe

    state: Any = recipe(**parameters, return_state=True)
    print(state.message)
    sys.exit(0 if state.is_completed() else 1)


if __name__ == "__main__":
    main()
