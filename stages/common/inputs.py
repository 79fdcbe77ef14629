"""What a stage depends on as dvc.yaml says it, in one hash: who finds the same one need not do the work again."""

import hashlib
import json
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.common.device import Compute
from stages.common.params import load

PIPELINE = Path("dvc.yaml")
TEMPLATE = re.compile(r"\$\{([\w.]+)\}")


def stages_of(pipeline: Path = PIPELINE) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load(pipeline)["stages"]
    return stages


def deps_of(declared: dict[str, Any]) -> list[str]:
    """With the values of the params that DVC puts in."""
    return [TEMPLATE.sub(lambda found: load(found[1], str), dep) for dep in declared["deps"]]


def inputs_hash(stage: str, compute: Compute) -> str:
    """Of the contents of the stage's `deps`, the values of its `params`, device, chip, threads and the libraries."""
    declared = stages_of()[stage]
    libraries = {name: version(name) for name in ("numpy", "pillow", "timm")}
    digest = hashlib.sha256(json.dumps(compute.describe() | libraries, sort_keys=True).encode())
    for name in declared.get("params", []):
        value: Any = load(name, object)
        digest.update(json.dumps([name, value], sort_keys=True).encode())
    for path in (path for dep in deps_of(declared) for path in files(Path(dep))):
        with path.open("rb") as file:
            digest.update(f"{path}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def files(path: Path) -> Iterator[Path]:
    """The file, or every one below the folder, sorted."""
    return iter(sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path])
