"""Checks the params that hold the paths of deps and outputs, before DVC fails with an error that does not name them."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from flows.errors import PipelineError
from flows.pipeline.dvc_adapter import PIPELINE

PARAMS = "params.yaml"
UNKNOWN_VALUE = "a key of another file"  # stands for the value of a key that params.yaml lacks: a text, so a valid path
PARAM = re.compile(r"\$\{([\w.]+)\}(\$\{nothing\})?")


def check_paths(root: Path) -> None:
    """Raises PipelineError if a dep or an output is a param that holds no path. DVC's own errors do not say so."""
    yaml = YAML(typ="safe")
    try:
        pipeline, params = (yaml.load((root / name).read_text(encoding="utf-8")) for name in (PIPELINE, PARAMS))
        stages = pipeline["stages"].items()
    except (OSError, ValueError, YAMLError, TypeError, KeyError, AttributeError):
        return  # DVC reports a broken file; a pipeline may need no params.yaml
    for name, stage in stages:
        for path in paths_of(stage):
            if (match := PARAM.fullmatch(path)) is None:
                continue
            value = params
            for key in match[1].split("."):
                value = value.get(key, UNKNOWN_VALUE) if isinstance(value, dict) else UNKNOWN_VALUE
            if value is None or value == "":
                raise PipelineError(f"{PARAMS}: `{match[1]}` is empty: the stage {name} needs a path")
            if not isinstance(value, str):
                raise PipelineError(
                    f"{PARAMS}: `{match[1]}` is {value}, which YAML reads as {type(value).__name__}: the stage "
                    f'{name} needs a path there: write it in quotes, "{value}"'
                )


def paths_of(stage: Any) -> Iterator[str]:
    """Yields the deps and outputs of a stage as dvc.yaml writes them. `stage` is the parsed YAML."""
    stage = stage.get("do", stage) if isinstance(stage, dict) else {}
    for kind in ("deps", "outs"):
        entries = stage.get(kind) or []
        for entry in entries if isinstance(entries, list) else []:
            yield str(next(iter(entry), "") if isinstance(entry, dict) else entry)
