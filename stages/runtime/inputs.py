"""Hashes everything that a stage depends on according to dvc.yaml: if the hash is equal, the result is equal too."""

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

DVC_YAML = Path("dvc.yaml")
TEMPLATE = re.compile(r"\$\{([\w.]+)\}")


def declared_inputs(stage: str) -> tuple[list[str], list[Path]]:
    """Returns (params, dependencies) of the stage in dvc.yaml, with the paths of this run.

    Replaces `${...}` by the value in the `vars` of dvc.yaml or in params.yaml, as DVC does.
    """
    pipeline: dict[str, Any] = YAML(typ="safe").load(DVC_YAML)
    known = {name: value for variables in pipeline.get("vars", []) for name, value in variables.items()}

    def value(match: re.Match[str]) -> str:
        return str(known[match[1]]) if match[1] in known else load(match[1], str)

    entry = pipeline["stages"][stage]
    return entry.get("params", []), [in_this_run(TEMPLATE.sub(value, dep)) for dep in entry["deps"]]


def inputs_hash(stage: str, machine: Mapping[str, str]) -> str:
    """Returns a hash of the contents of the stage's `deps`, the values of its `params`, libraries and the `machine`."""
    params, deps = declared_inputs(stage)
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
    """Returns the params, and the size, times and inode of each file. They show without reading that an input changed.

    A write that changes none of these is not noticed; this can happen only if the clock was set back.
    """
    params, deps = declared_inputs(stage)
    snapshot: dict[str, Any] = {name: load(name, object) for name in params}
    for path in (path for dep in deps for path in list_files(dep)):
        stat = path.stat()
        snapshot[str(path)] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return snapshot


def list_files(path: Path) -> Iterator[Path]:
    """Yields the file itself, or all files below the folder, sorted; without `__pycache__`."""
    if not path.is_dir():
        yield path
        return
    yield from sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
