"""Params that name the paths of deps and outputs: checked before DVC stumbles over one that is no path."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.errors import PipelineError
from flows.pipeline.dvc_adapter import PIPELINE

PARAMS = "params.yaml"
IN_ANOTHER_FILE = "a key of another file"  # a text, so it counts as a path
PARAM = re.compile(r"\$\{([\w.]+)\}(\$\{nothing\})?")


def check_paths(root: Path) -> None:
    """Raises PipelineError: a dep or an output is a param that holds no path. DVC's own errors do not say so."""
    yaml = YAML(typ="safe")
    try:
        pipeline, params = (yaml.load((root / name).read_text(encoding="utf-8")) for name in (PIPELINE, PARAMS))
        stages = pipeline["stages"].items()
    except (OSError, ValueError, YAMLError, TypeError, KeyError, AttributeError):
        return  # DVC says what is wrong there, and may need neither
    for name, stage in stages:
        for path in paths_of(stage):
            if (found := PARAM.fullmatch(path)) is None:
                continue
            value = params
            for key in found[1].split("."):
                value = value.get(key, IN_ANOTHER_FILE) if isinstance(value, dict) else IN_ANOTHER_FILE
            if value is None or value == "":
                raise PipelineError(f"{PARAMS}: `{found[1]}` is empty: the stage {name} needs a path there")
            if not isinstance(value, str):
                raise PipelineError(
                    f"{PARAMS}: `{found[1]}` is {value}, which YAML reads as {type(value).__name__}: the stage "
                    f'{name} needs a path there: write it in quotes, "{value}"'
                )


def paths_of(stage: Any) -> Iterator[str]:
    """Deps and outputs as a stage of dvc.yaml names them; `stage` as it was read."""
    stage = stage.get("do", stage) if isinstance(stage, dict) else {}
    for kind in ("deps", "outs"):
        entries = stage.get(kind) or []
        for entry in entries if isinstance(entries, list) else []:
            yield str(next(iter(entry), "") if isinstance(entry, dict) else entry)
