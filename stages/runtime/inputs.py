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


def declared(stage: str) -> tuple[list[str], list[Path]]:
    """(params, dependencies) of the stage in dvc.yaml: the paths are those of this run, and `${...}` is replaced by its
    value in the `vars` of dvc.yaml or in params.yaml, as DVC does."""
    pipeline: dict[str, Any] = YAML(typ="safe").load(PIPELINE)
    known = {name: value for variables in pipeline.get("vars", []) for name, value in variables.items()}

    def value(match: re.Match[str]) -> str:
        return str(known[match[1]]) if match[1] in known else load(match[1], str)

    entry = pipeline["stages"][stage]
    return entry.get("params", []), [in_this_run(TEMPLATE.sub(value, dep)) for dep in entry["deps"]]


def inputs_hash(stage: str, machine: Mapping[str, str]) -> str:
    """Hash of the contents of the stage's `deps`, the values of its `params`, the libraries and the `machine`."""
    params, deps = declared(stage)
    libraries = {name: version(name) for name in ("numpy", "pillow", "timm")}
    digest = hashlib.sha256(json.dumps({**machine, **libraries}, sort_keys=True).encode())
    for name in params:
        value: Any = load(name, object)
        digest.update(json.dumps([name, value], sort_keys=True).encode())
    for path in (path for dep in deps for path in list_files(dep)):
        with path.open("rb") as file:
            digest.update(f"{path}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def inputs_snapshot(stage: str) -> dict[str, Any]:
    """The params, and size, times and inode of each file: they show that an input changed, without reading the files.

    A write that changes none of these goes unnoticed; that needs a clock that was set back.
    """
    params, deps = declared(stage)
    snapshot: dict[str, Any] = {name: load(name, object) for name in params}
    for path in (path for dep in deps for path in list_files(dep)):
        stat = path.stat()
        snapshot[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return snapshot


def list_files(path: Path) -> Iterator[Path]:
    """The file itself, or all files below the folder, sorted; without `__pycache__`."""
    if not path.is_dir():
        yield path
        return
    yield from sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
