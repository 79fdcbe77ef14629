"""Exchanges data with other clones: `python -m flows.sharing.remote ACTION STAGE...`. ACTIONS lists the actions.

The data go through DVC's remote. If all clones share one cache directory, nothing has to be transferred. DVC's own
`--run-cache` option copies every entry each time and ignores the targets (`StageCache.transfer(force=True)`). Its
`push --run-cache` also sends entries before the outputs that they name, and never sends outputs marked `cache: false`.
This module pushes the outputs of a stage first and its run-cache entry last, so that an interrupted push leaves no
entry whose outputs are missing.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException

from flows.errors import PipelineError
from flows.pipeline import dvc_adapter, lock_file
from flows.pipeline.dvc_adapter import Repo, entry_of, is_run_cacheable, latest_entry, open_repo
from flows.pipeline.graph import Node, read_graph
from flows.pipeline.planning import cached_result, changed_inputs, overlaps

LOST_PREFIX = "LOST "  # starts a line that names a stage whose outputs no clone or remote has


def has_shared_cache(repo: Repo) -> bool:
    """Returns True if all clones use one cache directory, so that nothing has to be transferred.

    Raises:
        PipelineError: there is neither a remote nor a shared cache.
    """
    if dvc_adapter.has_remote(repo):
        return False
    if dvc_adapter.cache_folder(repo).resolve().is_relative_to(Path(repo.root_dir).resolve()):
        raise PipelineError(
            "clones exchange data through a DVC remote or a shared cache, and there is neither: "
            "`dvc remote add -d NAME URL`, or `dvc cache dir PATH` with the same PATH in every clone"
        )
    return True


def pull_stage(repo: Repo, node: Node) -> None:
    """Pulls the run-cache, the stage's inputs, and the outputs that the run-cache has for these inputs."""
    has_transfers = not has_shared_cache(repo)
    if has_transfers:
        dvc_adapter.fetch_run_cache(repo)
    upstream = upstream_outputs(repo, node)
    deps = {dep.fs_path for dep in node.dvc.deps}
    inputs = {path: out for path, out in upstream.items() if path in deps or overlaps(path, node.dvc.deps)}
    missing = [path for path, out in inputs.items() if out.status()]
    if missing and has_transfers:
        repo.pull(targets=missing, force=True)
    elif missing:
        repo.checkout(targets=missing, force=True)
    is_in_lock = any(out.hash_info for out in node.dvc.outs) and not changed_inputs(node, upstream)
    # also the run-cache's result, because only the run-cache has the outputs that are marked `cache: false`
    for as_locked in (True, False) if is_in_lock else (False,):
        result = cached_result(node, upstream, pull=True, as_locked=as_locked) if has_transfers else None
        if result is not None and dvc_adapter.are_file_lists_in_cache_or_remote(repo, result):
            dvc_adapter.pull_outputs(repo, result)


def upstream_outputs(repo: Repo, node: Node) -> dict[str, Any]:
    """Returns by path the outputs that dvc.lock has of the stages directly upstream."""
    graph = read_graph(repo, [node.name])
    return {out.fs_path: out for name in node.upstream for out in graph[name].dvc.outs if out.hash_info}


def push_stage(repo: Repo, node: Node) -> None:
    """Pushes the outputs that dvc.lock has of the stage."""
    entry = entry_of(node.dvc) if is_run_cacheable(node.dvc) else None
    result = dvc_adapter.stage_of_entry(node.dvc, entry) if entry else None
    push_outputs(repo, result or node.dvc, entry if result else None)


def push_cached_result(repo: Repo, node: Node) -> None:
    """Pushes the outputs that this clone's run-cache has for these inputs, so that a worker need not compute them."""
    result = cached_result(node, upstream_outputs(repo, node), pull=False, as_locked=False)
    if result is not None:
        push_outputs(repo, result, latest_entry(node.dvc))


def push_outputs(repo: Repo, stage: Any, entry: Path | None) -> None:
    """Pushes a stage's outputs, then its run-cache entry."""
    if has_shared_cache(repo):
        return
    dvc_adapter.push_outputs(repo, stage)
    if entry:
        dvc_adapter.push_entry(repo, entry)


def pull_plots(repo: Repo, node: Node) -> None:
    """Pulls the metrics and plots of a stage that another clone ran: they are small, and people want to see them."""
    paths = {out.def_path for out in node.dvc.outs if out.metric or out.plot}
    if not paths:
        return
    lock, name = lock_file.position(node.name)
    stage = dvc_adapter.stage_of_lock_entry(node.dvc, lock_file.read(repo)[lock][name])
    outs = [out for out in stage.outs if out.def_path in paths]
    if not has_shared_cache(repo):
        for out in outs:
            dvc_adapter.pull_output(repo, out)
    dvc_adapter.checkout_copies(repo, outs)


def ensure_pushed(repo: Repo, node: Node) -> None:
    """Pushes the outputs of a stage that is up to date. Prints `LOST stage` if a part of them is neither in this clone
    nor in the remote."""
    if any(out.hash_info for out in node.dvc.outs) and not node.dvc.frozen:
        is_here = bool(node.dvc.outs_cached())
        if is_here and not has_shared_cache(repo):
            push_stage(repo, node)
        elif not is_here and (has_shared_cache(repo) or not dvc_adapter.are_outputs_in_cache_or_remote(repo, node.dvc)):
            print(f"{LOST_PREFIX}{node.name}")


ACTIONS: dict[str, Callable[[Repo, Node], None]] = {
    "pull": pull_stage,
    "push": push_stage,
    "push-cached-result": push_cached_result,
    "pull-plots": pull_plots,
    "ensure-pushed": ensure_pushed,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.sharing.remote", description=__doc__)
    parser.add_argument("action", choices=list(ACTIONS))
    parser.add_argument("stages", metavar="STAGE", nargs="+")
    arguments = parser.parse_args()
    try:
        repo = open_repo(wait_for_lock=True)
        with repo.lock:  # a stage that ends at the same time writes dvc.lock in place
            graph = read_graph(repo, arguments.stages)
        for stage in arguments.stages:
            ACTIONS[arguments.action](repo, graph[stage])
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"{arguments.action} {' '.join(arguments.stages)}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
