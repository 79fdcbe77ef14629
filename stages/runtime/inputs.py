"""One hash over everything that a stage depends on, as dvc.yaml declares it: if it is equal, so is the result."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from stages.runtime.folders import in_this_run
from stages.runtime.params import load

PIPELINE = Path("dvc.yaml")
TEMPLATE = re.compile(r"\$\{([\w.]+)\}")


def stages_of(pipeline: Path = PIPELINE) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load(pipeline)["stages"]
    return stages


def deps_of(declared: dict[str, Any]) -> list[Path]:
    """The paths of the stage's `deps` in this run, with `${param}` replaced by its value, as DVC does."""
    return [in_this_run(TEMPLATE.sub(lambda match: load(match[1], str), dep)) for dep in declared["deps"]]


def inputs_hash(stage: str, machine: Mapping[str, str]) -> str:
    """Hash of the contents of the stage's `deps`, the values of its `params`, the libraries and the `machine`."""
    declared = stages_of()[stage]
    libraries = {name: version(name) for name in ("numpy", "pillow", "timm")}
    digest = hashlib.sha256(json.dumps({**machine, **libraries}, sort_keys=True).encode())
    for name in declared.get("params", []):
        value: Any = load(name, object)
        digest.update(json.dumps([name, value], sort_keys=True).encode())
    for path in (path for dep in deps_of(declared) for path in list_files(dep)):
        with path.open("rb") as file:
            digest.update(f"{path}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def inputs_snapshot(stage: str) -> dict[str, Any]:
    """The params, and size, times and inode of each file: they show that an input changed, without reading the files.

    A write that changes none of these goes unnoticed; that needs a clock that was set back.
    """
    declared = stages_of()[stage]
    seen: dict[str, Any] = {name: load(name, object) for name in declared.get("params", [])}
    for path in (path for dep in deps_of(declared) for path in list_files(Path(dep))):
        stat = path.stat()
        seen[f"{path}"] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return seen


def list_files(path: Path) -> Iterator[Path]:
    """The file itself, or all files below the folder, sorted; without `__pycache__`."""
    if not path.is_dir():
        yield path
        return
    yield from sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
