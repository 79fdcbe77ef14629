"""Exchanges data with other clones: `python -m flows.sharing.remote ACTION STAGE...`; see ACTIONS for what each does.

Through DVC's remote, or by one cache directory that all clones share (then there is nothing to transfer). DVC's own
`--run-cache` transfers copy every entry each time and know no targets (`StageCache.transfer(force=True)`), and
`push --run-cache` sends entries before the outputs that they name, and never the outputs marked `cache: false`.
Here the outputs of one stage go first and its entry in the run-cache last: a push that is cut short leaves no entry
whose outputs are missing.
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

LOST = "LOST "  # what a line begins with that names a stage whose outputs are nowhere


def has_shared_cache(repo: Repo) -> bool:
    """Is there nothing to transfer, because all clones use one cache directory?

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
    """The run-cache, what the stage reads, and what the run-cache has for these inputs."""
    transfers = not has_shared_cache(repo)
    if transfers:
        dvc_adapter.fetch_run_cache(repo)
    made = upstream_outputs(repo, node)
    deps = {dep.fs_path for dep in node.dvc.deps}
    wanted = [path for path, out in made.items() if (path in deps or overlaps(path, node.dvc.deps)) and out.status()]
    if wanted and transfers:
        repo.pull(targets=wanted, force=True)
    elif wanted:
        repo.checkout(targets=wanted, force=True)
    locked = any(out.hash_info for out in node.dvc.outs) and not changed_inputs(node, made)
    for as_locked in (True, False) if locked else (False,):  # outputs marked `cache: false` are in the run-cache alone
        result = cached_result(node, made, pull=True, as_locked=as_locked) if transfers else None
        if result is not None and dvc_adapter.folders_lie_in_cache_or_remote(repo, result):
            dvc_adapter.pull_outputs(repo, result)


def upstream_outputs(repo: Repo, node: Node) -> dict[str, Any]:
    """The outputs that dvc.lock has of the stages right above, by path."""
    graph = read_graph(repo, [node.name])
    return {out.fs_path: out for name in node.upstream for out in graph[name].dvc.outs if out.hash_info}


def push_stage(repo: Repo, node: Node) -> None:
    """The outputs that dvc.lock has of the stage."""
    entry = entry_of(node.dvc) if is_run_cacheable(node.dvc) else None
    made = dvc_adapter.stage_of_entry(node.dvc, entry) if entry else None
    push_outputs(repo, made or node.dvc, entry if made else None)


def push_cached_result(repo: Repo, node: Node) -> None:
    """What the run-cache here has for these inputs, before a worker is asked: it may save a whole training."""
    found = cached_result(node, upstream_outputs(repo, node), pull=False, as_locked=False)
    if found is not None:
        push_outputs(repo, found, latest_entry(node.dvc))


def push_outputs(repo: Repo, stage: Any, entry: Path | None) -> None:
    """A stage's outputs, then its entry in the run-cache."""
    if has_shared_cache(repo):
        return
    dvc_adapter.push_outputs(repo, stage)
    if entry:
        dvc_adapter.push_entry(repo, entry)


def pull_plots(repo: Repo, node: Node) -> None:
    """Metrics and plots of a stage that another clone ran: they are small, and people want to see them."""
    shown = {out.def_path for out in node.dvc.outs if out.metric or out.plot}
    if not shown:
        return
    lock, name = lock_file.place(node.name)
    stage = dvc_adapter.stage_of_lock_entry(node.dvc, lock_file.read(repo)[lock][name])
    outs = [out for out in stage.outs if out.def_path in shown]
    if not has_shared_cache(repo):
        for out in outs:
            dvc_adapter.pull_output(repo, out)
    dvc_adapter.checkout_copies(repo, outs)


def ensure_pushed(repo: Repo, node: Node) -> None:
    """Push what is here of a stage that is up to date; `LOST stage` is printed where a part of it is nowhere."""
    if any(out.hash_info for out in node.dvc.outs) and not node.dvc.frozen:
        is_here = bool(node.dvc.outs_cached())
        if is_here and not has_shared_cache(repo):
            push_stage(repo, node)
        elif not is_here and (has_shared_cache(repo) or not dvc_adapter.lies_in_cache_or_remote(repo, node.dvc)):
            print(f"{LOST}{node.name}")


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
        with repo.lock:  # a stage that ends beside us writes dvc.lock in place
            graph = read_graph(repo, arguments.stages)
        for stage in arguments.stages:
            ACTIONS[arguments.action](repo, graph[stage])
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"{arguments.action} {' '.join(arguments.stages)}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
