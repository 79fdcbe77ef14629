"""The only module of flows/ that uses DVC's internal names. The other modules use this one, `dvc.api` and
`dvc.exceptions`; tests/flows/test_rooms.py checks their imports.

DVC documents its commands and `dvc.api`, which gives no access to the graph, dvc.lock or the run-cache. Therefore
pyproject.toml pins DVC to the minor version that the tests ran with. When you raise the pin, check this module.

`repo` is DVC's `Repo` of the current folder, `stage` a stage of it, `out` and `dep` an output and a dependency of a
stage. The other modules only read attributes of these objects that have existed since DVC 1: cmd, deps, outs, meta,
wdir, frozen, addressing, path_in_repo, hash_info, def_path, fs_path, status(), exists.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.index import collect_files
from dvc.repo.reproduce import get_active_graph
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.scm import RevError, SCMError
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc.utils.serialize import load_yaml, modify_yaml, parse_yaml
from dvc_objects.fs.generic import copy
from voluptuous import Invalid

from flows.errors import PipelineError

PIPELINE, LOCK = "dvc.yaml", "dvc.lock"
REVISION_ERRORS = (RevError, SCMError)  # what `dvc.api` raises if git does not know a revision
RUN_CACHE_HASH, OBJECTS_HASH = "md5-dos2unix", "md5"  # DVC's names for the two parts of a remote

__all__ = ["LOCK", "PIPELINE", "REVISION_ERRORS", "Repo"]


def open_repo(wait_for_lock: bool = False) -> Repo:
    """Returns the DVC repository of the current folder. Raises PipelineError if there is none."""
    try:
        return Repo(_wait_for_lock=wait_for_lock)
    except DvcException as error:
        raise PipelineError(f"{Path.cwd()}: {error}") from error


def active_graph(repo: Repo) -> Any:
    """Returns the networkx graph of all stages that `dvc repro` uses. An edge goes from a stage to a stage that it
    depends on; a frozen stage depends on nothing. Raises DvcException if a dvc.yaml cannot be read.
    """
    return get_active_graph(repo.index.graph)


def pipeline_files(repo: Repo) -> list[str]:
    """Returns the paths of all dvc.yaml files from the top folder, even of unreadable ones; the top one is first."""
    files = list[str]()

    def add_unreadable(path: str, _: Exception) -> None:
        files.append(str(Path(path).resolve()))

    files += [path for path, _ in collect_files(repo, onerror=add_unreadable)]
    root = Path(repo.root_dir).resolve()
    paths = {Path(path).resolve().relative_to(root) for path in files if Path(path).name == PIPELINE}
    return [path.as_posix() for path in sorted(paths, key=lambda path: (len(path.parts), path))]


def is_params(dep: Any) -> bool:
    """Returns True if the dependency is on keys of a params file."""
    return isinstance(dep, ParamsDependency)


# YAML, as DVC reads and writes it


def parse(text: str, name: str) -> dict[str, Any]:
    return dict(parse_yaml(text, name) or {})


def load(path: Path) -> dict[str, Any]:
    """Returns the content; an empty dict if there is no such file. Raises DvcException if the file is not YAML."""
    return dict(load_yaml(str(path)) or {}) if path.exists() else {}


@contextmanager
def edit(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the file's content, and writes it back when the block ends."""
    with modify_yaml(str(path)) as content:
        yield content


def valid_lock(text: str) -> dict[str, Any] | None:
    """Returns the content of a dvc.lock; None if the text is not a valid dvc.lock."""
    try:
        return dict(COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, LOCK)))
    except (DvcException, Invalid):
        return None


def overrides_by_file(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Returns the `-S` values for each params file."""
    from dvc.utils.cli_parse import to_path_overrides

    return dict(to_path_overrides(overrides))


def apply_overrides(path: str, overrides: Sequence[str]) -> None:
    """Writes the values to the file. Raises DvcException if a value cannot be set; then the file is unchanged."""
    from dvc.utils.hydra import apply_overrides as write  # imports hydra, which takes a while

    write(path, list(overrides))


# The run-cache: for each stage and its inputs the outputs that it wrote


def is_run_cacheable(stage: Any) -> bool:
    """Returns True if the run-cache can store the stage's results. DVC's `_can_hash` would also hash the deps."""
    outs = all(out.protocol == "local" and out.is_in_repo and not out.persist for out in stage.outs)
    return bool(stage.cmd and stage.deps and stage.outs and outs and all(d.protocol == "local" for d in stage.deps))


def latest_entry(stage: Any) -> Path | None:
    """Returns the run-cache entry that DVC would use for these inputs, as `StageCache._load` does. That function
    needs the deps on the disk."""
    folder = Path(stage.repo.stage_cache._get_cache_dir(_get_cache_hash(to_single_stage_lockfile(stage), key=True)))
    entries = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)
    return entries[-1] if entries else None


def entry_of(stage: Any) -> Path | None:
    """Returns the run-cache entry for the inputs and outputs that dvc.lock has of the stage."""
    # two dicts, because with `key=True` DVC removes the outputs' hashes from the dict
    key, value = (_get_cache_hash(to_single_stage_lockfile(stage), key=is_key) for is_key in (True, False))
    path = Path(stage.repo.stage_cache._get_cache_path(key, value))
    return path if path.exists() else None


def stage_of_entry(stage: Any, entry: Path) -> Any:
    """Returns the stage with the outputs that a run-cache entry names; None if the entry is broken."""
    cache = stage.repo.stage_cache
    content = cache._load_cache(entry.parent.name, entry.name)
    return cache._create_stage(content, wdir=stage.wdir) if content else None


def stage_of_lock_entry(stage: Any, entry: Mapping[str, Any]) -> Any:
    """Returns the stage with the outputs that a dvc.lock entry names."""
    return stage.repo.stage_cache._create_stage(entry, wdir=stage.wdir)


def checkout_copies(repo: Repo, outs: Iterable[Any]) -> None:
    """Copies outputs from the cache to the workspace. They are not linked, because git tracks some of them."""
    with repo.stage_cache._cache_type_copy():
        for out in outs:
            out.checkout(force=True)


# The cache and the remote


def has_remote(repo: Repo) -> bool:
    return bool(repo.config["core"].get("remote"))


def cache_folder(repo: Repo) -> Path:
    return Path(repo.cache.local.path)


def fetch_run_cache(repo: Repo) -> None:
    """Fetches the run-cache entries that this clone lacks. `dvc fetch --run-cache` would copy every entry each time."""
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name=RUN_CACHE_HASH)
    repo.stage_cache.transfer(remote, repo.cache.legacy, force=False)


def push_entry(repo: Repo, entry: Path) -> None:
    """Copies one run-cache entry to the remote."""
    remote = repo.cloud.get_remote_odb(None, "push", hash_name=RUN_CACHE_HASH)
    relative = entry.relative_to(repo.cache.legacy.path).as_posix()
    copy(repo.cache.legacy.fs, str(entry), remote.fs, remote.fs.join(remote.path, relative))


def pull_outputs(repo: Repo, stage: Any) -> None:
    """Copies a stage's outputs from the remote to the cache.

    Raises PipelineError if files cannot be copied, DvcException if the remote does not answer.
    """
    _transfer(stage.get_used_objs(), repo.cloud.pull)


def pull_output(repo: Repo, out: Any) -> None:
    _transfer({None: {out.hash_info}}, repo.cloud.pull)


def push_outputs(repo: Repo, stage: Any) -> None:
    """Copies a stage's outputs from the cache to the remote."""
    _transfer(stage.get_used_objs(), repo.cloud.push)


def _transfer(used: Mapping[Any, Any], move: Callable[[Any], Any]) -> None:
    for objects in used.values():
        if failed := move(objects).failed:
            raise PipelineError(f"{len(failed)} files could not be transferred, for example {next(iter(failed))}")


def are_outputs_in_cache_or_remote(repo: Repo, stage: Any) -> bool:
    """Returns True if the cache or the remote has every file of the stage's outputs."""
    try:
        used = stage.get_used_objs()
        return bool(used) and not any(repo.cloud.status(objects).missing for objects in used.values())
    except (DvcException, FileNotFoundError):  # the list of files of a folder is lost
        return False


def are_file_lists_in_cache_or_remote(repo: Repo, stage: Any) -> bool:
    """Returns True if the cache or the remote has the list of files of every folder among the outputs.

    DVC raises the same error if `dvc gc` deleted a list and if the remote does not answer. This function raises an
    error only if the remote does not answer.
    """
    md5s = [out.hash_info.value for out in stage.outs if out.hash_info and out.hash_info.isdir]
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name=OBJECTS_HASH)
    return all(repo.cache.local.exists(md5) or remote.exists(md5) for md5 in md5s)
