"""`-S section.key=value`, by DVC's own code, so that it means what it means in `dvc exp run`."""

from collections.abc import Sequence

from dvc.exceptions import DvcException

from flows.graph import PipelineError


def set_params(overrides: Sequence[str]) -> None:
    """Write them to params.yaml, or to the file named before a colon. Raises PipelineError."""
    if not overrides:
        return
    from dvc.utils.cli_parse import to_path_overrides
    from dvc.utils.hydra import apply_overrides

    for path, changes in to_path_overrides(overrides).items():
        try:
            apply_overrides(path, changes)
        except DvcException as error:
            cause = str(error.__cause__ or "").splitlines()[:1]
            raise PipelineError(f"-S {' '.join(changes)}: {error} in {path} {' '.join(cause)}") from error
