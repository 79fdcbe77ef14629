"""Applies `-S section.key=value` with DVC's own code, so that it means the same as in `dvc exp run`."""

from collections.abc import Sequence
from pathlib import Path

from dvc.exceptions import DvcException

from flows.errors import PipelineError
from flows.pipeline.dvc_adapter import apply_overrides, overrides_by_file


def set_params(overrides: Sequence[str]) -> None:
    """Writes the values to params.yaml, or to the file that is named before a colon.

    Raises PipelineError if a value cannot be set; then no file is changed.
    """
    if not overrides:
        return
    old_contents: dict[Path, bytes] = {}
    for path, changes in overrides_by_file(overrides).items():
        try:
            if Path(path).is_file():
                old_contents[Path(path)] = Path(path).read_bytes()
            apply_overrides(path, changes)
        except DvcException as error:
            for changed, content in old_contents.items():
                changed.write_bytes(content)
            cause = str(error.__cause__ or "").splitlines()[:1]
            raise PipelineError(f"-S {' '.join(changes)}: {error} in {path} {' '.join(cause)}") from error
