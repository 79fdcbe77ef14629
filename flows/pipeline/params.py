"""`-S section.key=value`, by DVC's own code, so that it means what it means in `dvc exp run`."""

from collections.abc import Sequence
from pathlib import Path

from dvc.exceptions import DvcException

from flows.pipeline.graph import PipelineError


def set_params(overrides: Sequence[str]) -> None:
    """Write them to params.yaml, or to the file named before a colon: all, or (PipelineError) none."""
    if not overrides:
        return
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides

    before: dict[Path, bytes] = {}
    for path, changes in to_path_overrides(overrides).items():
        try:
            if Path(path).is_file():
                before[Path(path)] = Path(path).read_bytes()
            apply_overrides(path, changes)
        except DvcException as error:
            for changed, content in before.items():
                changed.write_bytes(content)
            cause = str(error.__cause__ or "").splitlines()[:1]
            raise PipelineError(f"-S {' '.join(changes)}: {error} in {path} {' '.join(cause)}") from error
