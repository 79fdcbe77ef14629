"""What a stage depends on as dvc.yaml says it, in one hash: who finds the same one need not do the work again."""

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
    """Where this run has them, with the values of the params that DVC puts in."""
    return [in_this_run(TEMPLATE.sub(lambda found: load(found[1], str), dep)) for dep in declared["deps"]]


def inputs_hash(stage: str, machine: Mapping[str, str]) -> str:
    """Of the contents of the stage's `deps`, the values of its `params`, the libraries and the `machine`."""
    declared = stages_of()[stage]
    libraries = {name: version(name) for name in ("numpy", "pillow", "timm")}
    digest = hashlib.sha256(json.dumps({**machine, **libraries}, sort_keys=True).encode())
    for name in declared.get("params", []):
        value: Any = load(name, object)
        digest.update(json.dumps([name, value], sort_keys=True).encode())
    for path in (path for dep in deps_of(declared) for path in files(dep)):
        with path.open("rb") as file:
            digest.update(f"{path}\0".encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def inputs_seen(stage: str) -> dict[str, Any]:
    """What differs where an input has changed, without reading the files: size, times and inode of each, the params.

    A file that was written to without any of these changing is not noticed: that takes who sets clocks back.
    """
    declared = stages_of()[stage]
    seen: dict[str, Any] = {name: load(name, object) for name in declared.get("params", [])}
    for path in (path for dep in deps_of(declared) for path in files(Path(dep))):
        stat = path.stat()
        seen[f"{path}"] = (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
    return seen


def files(path: Path) -> Iterator[Path]:
    """The file, or every one below the folder, sorted; without what Python compiles beside its sources."""
    if not path.is_dir():
        yield path
        return
    yield from sorted(one for one in path.rglob("*") if one.is_file() and "__pycache__" not in one.parts)
