"""Command-line arguments of a stage: `python -m stages.<stage> [--root FOLDER] [--shared STAGES] [KEY=VALUE ...]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stages.runtime import folders, params
from stages.runtime.errors import StageError


def apply_arguments(arguments: Sequence[str], description: str | None) -> None:
    """Sets this run's folders and the params that override params.yaml. Raises StageError or SystemExit."""
    spec = sys.modules["__main__"].__spec__  # None if the stage was not started with -m
    parser = argparse.ArgumentParser(
        prog=f"python -m {spec.name}" if spec else None,
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="The settings of the stage are in params.yaml. Run the stage from the top folder of the project.",
    )
    parser.add_argument("--root", default=str(folders.MAIN_ROOT), help="folder of this run's stages (default: data)")
    parser.add_argument(
        "--shared", default="", metavar="STAGES", help="stages to take from data, for example resize,precompute"
    )
    parser.add_argument(
        "changes", nargs="*", metavar="KEY=VALUE", help="a value that replaces one of params.yaml: split.cv_idx=1"
    )
    args = parser.parse_args(arguments)
    root = Path(args.root)
    if root.is_absolute() or ".." in root.parts or not root.is_relative_to(folders.MAIN_ROOT):
        raise StageError(f"--root {args.root}: it must be data or a folder below data, for example data/folds/1")
    folders.set_run(root, shared_stages(args.shared, root, Path(sys.argv[0]).stem))
    params.override(args.changes)


def shared_stages(names: str, root: Path, stage: str) -> frozenset[str]:
    """Returns the stages named in `names`, separated by commas. Raises StageError if `stage` cannot take from them.

    `stage` itself cannot be shared, because it would overwrite the outputs of the main pipeline.
    """
    shared = frozenset(names.split(",")) if names else frozenset()
    stages = {path.stem for path in Path(__file__).parents[1].glob("*.py")}
    if unknown := sorted(shared - stages):
        raise StageError(f"--shared {names}: there is no stage {unknown[0]!r}: write names such as resize,precompute")
    if stage in shared:
        raise StageError(f"--shared {names}: {stage} cannot take its own outputs from data: leave it out")
    if shared and root == folders.MAIN_ROOT:
        raise StageError(f"--shared {names} has an effect only with --root: add --root data/..., or leave it out")
    return shared
