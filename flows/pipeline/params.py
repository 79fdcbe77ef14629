"""`-S section.key=value`, by DVC's own code, so that it means what it means in `dvc exp run`."""

from collections.abc import Sequence
from pathlib import Path

from dvc.exceptions import DvcException

from flows.errors import PipelineError
from flows.pipeline.dvc_adapter import apply_overrides, overrides_by_file


def set_params(overrides: Sequence[str]) -> None:
    """Write them to params.yaml, or to the file named before a colon: all, or (PipelineError) none."""
    if not overrides:
        return
    before: dict[Path, bytes] = {}
    for path, changes in overrides_by_file(overrides).items():
        try:
            if Path(path).is_file():
                before[Path(path)] = Path(path).read_bytes()
            apply_overrides(path, changes)
        except DvcException as error:
            for changed, content in before.items():
                changed.write_bytes(content)
            cause = str(error.__cause__ or "").splitlines()[:1]
            raise PipelineError(f"-S {' '.join(changes)}: {error} in {path} {' '.join(cause)}") from error
