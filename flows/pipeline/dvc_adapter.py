"""The only module of flows/ that uses DVC's internal names; the others ask it, or use `dvc.api` and `dvc.exceptions`.

DVC documents commands and `dvc.api`, which has no graph, no dvc.lock and no run-cache. pyproject.toml therefore pins
DVC to the minor version that the tests ran with. When you raise the pin, this is the module to read again. A test
(tests/flows/test_rooms.py) compares the imports with this rule.

`repo` is DVC's `Repo` of the current folder, `stage` its stage, `out` and `dep` its outputs and dependencies. The other
modules read the attributes of those that have stood since DVC 1: cmd, deps, outs, meta, wdir, frozen, addressing,
path_in_repo, hash_info, def_path, fs_path, status(), exists.
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
REVISION_ERRORS = (RevError, SCMError)  # what `dvc.api` raises where git does not know a revision
RUN_CACHE_HASH, OBJECTS_HASH = "md5-dos2unix", "md5"  # DVC's names of the two parts of a remote

__all__ = ["LOCK", "PIPELINE", "REVISION_ERRORS", "Repo"]


def open_repo(wait_for_lock: bool = False) -> Repo:
    """The repository of the current folder. Raises PipelineError where there is none."""
    try:
        return Repo(_wait_for_lock=wait_for_lock)
    except DvcException as error:
        raise PipelineError(f"{Path.cwd()}: {error}") from error


def active_graph(repo: Repo) -> Any:
    """networkx graph of all stages, an edge from each to those it depends on; a frozen stage depends on nothing.

    It is what `dvc repro` walks. Raises DvcException: a dvc.yaml cannot be read.
    """
    return get_active_graph(repo.index.graph)


def pipeline_files(repo: Repo) -> list[str]:
    """Paths from the top folder of all dvc.yaml files, those that cannot be read among them; the top one first."""
    found = list[str]()

    def cannot_be_read(path: str, _: Exception) -> None:
        found.append(str(Path(path).resolve()))

    found += [path for path, _ in collect_files(repo, onerror=cannot_be_read)]
    root = Path(repo.root_dir).resolve()
    paths = {Path(path).resolve().relative_to(root) for path in found if Path(path).name == PIPELINE}
    return [path.as_posix() for path in sorted(paths, key=lambda path: (len(path.parts), path))]


def is_params(dep: Any) -> bool:
    """Is the dependency one on keys of a params file?"""
    return isinstance(dep, ParamsDependency)


# YAML, as DVC reads and writes it


def parse(text: str, name: str) -> dict[str, Any]:
    return dict(parse_yaml(text, name) or {})


def load(path: Path) -> dict[str, Any]:
    """Empty where there is no such file. Raises DvcException: it is no YAML."""
    return dict(load_yaml(str(path)) or {}) if path.exists() else {}


@contextmanager
def edit(path: Path) -> Iterator[dict[str, Any]]:
    """The file's content, written back when the block ends."""
    with modify_yaml(str(path)) as content:
        yield content


def valid_lock(text: str) -> dict[str, Any] | None:
    """The content of a dvc.lock; None where it is not one."""
    try:
        return dict(COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, LOCK)))
    except (DvcException, Invalid):
        return None


def overrides_by_file(overrides: Sequence[str]) -> dict[str, list[str]]:
    """`-S` values by the params file that they are for."""
    from dvc.utils.cli_parse import to_path_overrides

    return dict(to_path_overrides(overrides))


def apply_overrides(path: str, overrides: Sequence[str]) -> None:
    """Write them to the file. Raises DvcException, and then nothing was written."""
    from dvc.utils.hydra import apply_overrides as write  # hydra takes a while to import

    write(path, list(overrides))


# The run-cache: for each stage, what its inputs gave


def is_run_cacheable(stage: Any) -> bool:
    """Does the run-cache keep such a stage? As `_can_hash` of DVC, which also hashes every dep on the disk."""
    outs = all(out.protocol == "local" and out.is_in_repo and not out.persist for out in stage.outs)
    return bool(stage.cmd and stage.deps and stage.outs and outs and all(d.protocol == "local" for d in stage.deps))


def latest_entry(stage: Any) -> Path | None:
    """The entry that DVC would take for these inputs; as `StageCache._load`, which insists on deps on the disk."""
    folder = Path(stage.repo.stage_cache._get_cache_dir(_get_cache_hash(to_single_stage_lockfile(stage), key=True)))
    entries = sorted(folder.glob("*"), key=lambda path: path.stat().st_mtime)
    return entries[-1] if entries else None


def entry_of(stage: Any) -> Path | None:
    """The entry for what dvc.lock says the stage read and wrote."""
    # each its own dict: with `key` DVC takes the outputs' hashes out of the one it is given
    key, value = (_get_cache_hash(to_single_stage_lockfile(stage), key=is_key) for is_key in (True, False))
    path = Path(stage.repo.stage_cache._get_cache_path(key, value))
    return path if path.exists() else None


def stage_of_entry(stage: Any, entry: Path) -> Any:
    """The stage with the outputs that an entry of the run-cache names; None where the entry is broken."""
    cache = stage.repo.stage_cache
    content = cache._load_cache(entry.parent.name, entry.name)
    return cache._create_stage(content, wdir=stage.wdir) if content else None


def stage_of_lock_entry(stage: Any, entry: Mapping[str, Any]) -> Any:
    """The stage with the outputs that an entry of dvc.lock names."""
    return stage.repo.stage_cache._create_stage(entry, wdir=stage.wdir)


def checkout_copies(repo: Repo, outs: Iterable[Any]) -> None:
    """From the cache to the workspace, as copies and not as links: git keeps some of them."""
    with repo.stage_cache._cache_type_copy():
        for out in outs:
            out.checkout(force=True)


# The cache and the remote


def has_remote(repo: Repo) -> bool:
    return bool(repo.config["core"].get("remote"))


def cache_folder(repo: Repo) -> Path:
    return Path(repo.cache.local.path)


def fetch_run_cache(repo: Repo) -> None:
    """What is not here yet. DVC's own `dvc fetch --run-cache` copies every entry each time."""
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name=RUN_CACHE_HASH)
    repo.stage_cache.transfer(remote, repo.cache.legacy, force=False)


def push_entry(repo: Repo, entry: Path) -> None:
    """One entry of the run-cache."""
    remote = repo.cloud.get_remote_odb(None, "push", hash_name=RUN_CACHE_HASH)
    relative = entry.relative_to(repo.cache.legacy.path).as_posix()
    copy(repo.cache.legacy.fs, str(entry), remote.fs, remote.fs.join(remote.path, relative))


def pull_outputs(repo: Repo, stage: Any) -> None:
    """From the remote to the cache. Raises PipelineError, or DvcException where the remote does not answer."""
    _transfer(stage.get_used_objs(), repo.cloud.pull)


def pull_output(repo: Repo, out: Any) -> None:
    _transfer({None: {out.hash_info}}, repo.cloud.pull)


def push_outputs(repo: Repo, stage: Any) -> None:
    """From the cache to the remote."""
    _transfer(stage.get_used_objs(), repo.cloud.push)


def _transfer(used: Mapping[Any, Any], move: Callable[[Any], Any]) -> None:
    for objects in used.values():
        if failed := move(objects).failed:
            raise PipelineError(f"{len(failed)} files could not be transferred, {next(iter(failed))} among them")


def lies_in_cache_or_remote(repo: Repo, stage: Any) -> bool:
    """Each object of the stage's outputs."""
    try:
        used = stage.get_used_objs()
        return bool(used) and not any(repo.cloud.status(objects).missing for objects in used.values())
    except (DvcException, FileNotFoundError):  # the list of a folder's files is lost
        return False


def folders_lie_in_cache_or_remote(repo: Repo, stage: Any) -> bool:
    """Each folder's list of files. DVC says the same of a list that `dvc gc` took away and of a remote that does not
    answer; asked so, only the second raises."""
    folders = [out.hash_info.value for out in stage.outs if out.hash_info and out.hash_info.isdir]
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name=OBJECTS_HASH)
    return all(repo.cache.local.exists(one) or remote.exists(one) for one in folders)
