"""What a clone gets from the others and gives to them.

`python -m flows.sharing.remote pull|push|offer|look|settle STAGE...`

Through DVC's remote, or by one cache directory that all clones share (then there is nothing to transfer). DVC's own
`--run-cache` transfers copy every entry each time and know no targets (`StageCache.transfer(force=True)`), and
`push --run-cache` sends entries before what they promise, and never the outputs marked `cache: false`. So: what one
stage needs or made, data first, its entry in the run-cache last. A push that is cut short promises nothing.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_objects.fs.generic import copy

from flows.pipeline.graph import Node, PipelineError, open_repo, read_graph
from flows.pipeline.lock_file import entries
from flows.plan import keeps, newest, own_changes, partly, remembered
from flows.processes.process import LOST


def shared(repo: Repo) -> bool:
    """Is there nothing to transfer, because all clones use one cache directory?

    Raises:
        PipelineError: there is neither a remote nor a shared cache.
    """
    if repo.config["core"].get("remote"):
        return False
    if Path(repo.cache.local.path).resolve().is_relative_to(Path(repo.root_dir).resolve()):
        raise PipelineError(
            "clones exchange data through a DVC remote or a shared cache, and there is neither: "
            "`dvc remote add -d NAME URL`, or `dvc cache dir PATH` with the same PATH in every clone"
        )
    return True


def pull(repo: Repo, node: Node) -> None:
    """The run-cache, what the stage reads, and what the run-cache says that it gives."""
    far = not shared(repo)
    if far:
        fetch_run_cache(repo)
    made = made_upstream(repo, node)
    deps = {dep.fs_path for dep in node.dvc.deps}
    wanted = [path for path, out in made.items() if (path in deps or partly(path, node.dvc.deps)) and out.status()]
    if wanted and far:
        repo.pull(targets=wanted, force=True)
    elif wanted:
        repo.checkout(targets=wanted, force=True)
    locked = any(out.hash_info for out in node.dvc.outs) and not own_changes(node, made)
    for as_locked in (True, False) if locked else (False,):  # `cache: false` lies in the run-cache alone
        result = remembered(node, made, pull=True, as_locked=as_locked) if far else None
        if result is not None and folders_lie_there(repo, result):
            transfer(result.get_used_objs(), repo.cloud.pull)


def made_upstream(repo: Repo, node: Node) -> dict[str, Any]:
    """What the lock says that the stages above have made: outputs by path."""
    upstream = read_graph(repo, [node.name])
    return {out.fs_path: out for name in node.upstream for out in upstream[name].dvc.outs if out.hash_info}


def push(repo: Repo, node: Node) -> None:
    """What the lock says that the stage made."""
    runs, stage = repo.stage_cache, node.dvc
    if not keeps(stage):
        give(repo, stage, None)
        return
    # each its own dict: with `key` DVC takes the outputs' hashes out of the one it is given
    key, value = (_get_cache_hash(to_single_stage_lockfile(stage), key=one) for one in (True, False))
    entry = runs._load_cache(key, value)
    made = runs._create_stage(entry, wdir=stage.wdir) if entry else stage
    give(repo, made, Path(runs._get_cache_path(key, value)) if entry else None)


def offer(repo: Repo, node: Node) -> None:
    """What the run-cache here remembers of such inputs, before a worker is asked: it may be a whole training."""
    if (found := remembered(node, made_upstream(repo, node), pull=False, as_locked=False)) is not None:
        give(repo, found, newest(repo.stage_cache, node.dvc))


def give(repo: Repo, made: Any, entry: Path | None) -> None:
    """A stage's outputs, then its entry in the run-cache."""
    if shared(repo):
        return
    transfer(made.get_used_objs(), repo.cloud.push)
    if entry:
        remote = repo.cloud.get_remote_odb(None, "push", hash_name="md5-dos2unix")
        relative = entry.relative_to(repo.cache.legacy.path).as_posix()
        copy(repo.cache.legacy.fs, str(entry), remote.fs, remote.fs.join(remote.path, relative))


def look(repo: Repo, node: Node) -> None:
    """Metrics and plots of a stage that another clone ran: small, and what people want to see."""
    runs, shown = repo.stage_cache, {out.def_path for out in node.dvc.outs if out.metric or out.plot}
    if shown:
        for out in runs._create_stage(entries(repo)[node.name], wdir=node.dvc.wdir).outs:
            if out.def_path in shown:
                if not shared(repo):
                    transfer({None: {out.hash_info}}, repo.cloud.pull)
                with runs._cache_type_copy():  # some of them are git's to keep
                    out.checkout(force=True)


def settle(repo: Repo, node: Node) -> None:
    """Push what is here of a stage that is up to date; `LOST stage` is printed where a part of it is nowhere."""
    if any(out.hash_info for out in node.dvc.outs) and not node.dvc.frozen:
        if not shared(repo) and node.dvc.outs_cached():
            push(repo, node)
        elif not recoverable(repo, node.dvc):
            print(f"{LOST}{node.name}")


def recoverable(repo: Repo, stage: Any) -> bool:
    """Is each object of the stage's outputs in the cache or the remote?"""
    if shared(repo):
        return bool(stage.outs_cached())
    try:
        used = stage.get_used_objs()
        return bool(used) and not any(repo.cloud.status(objects).missing for objects in used.values())
    except (DvcException, FileNotFoundError):  # the list of a folder's files is lost
        return False


def folders_lie_there(repo: Repo, stage: Any) -> bool:
    """Is each folder's list of files in the cache or the remote? DVC says the same of a list that `dvc gc` took away
    and of a remote that does not answer; asked so, only the second raises."""
    folders = [out.hash_info.value for out in stage.outs if out.hash_info and out.hash_info.isdir]
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name="md5")
    return all(repo.cache.local.exists(one) or remote.exists(one) for one in folders)


def fetch_run_cache(repo: Repo) -> None:
    """What is not here yet."""
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name="md5-dos2unix")
    repo.stage_cache.transfer(remote, repo.cache.legacy, force=False)


def transfer(used: Any, move: Any) -> None:
    for objects in used.values():
        if failed := move(objects).failed:
            raise PipelineError(f"{len(failed)} files could not be transferred, {next(iter(failed))} among them")


def main() -> None:
    verbs = {"pull": pull, "push": push, "offer": offer, "look": look, "settle": settle}
    parser = argparse.ArgumentParser(prog="python -m flows.sharing.remote", description=__doc__)
    parser.add_argument("what", choices=list(verbs))
    parser.add_argument("stages", metavar="STAGE", nargs="+")
    arguments = parser.parse_args()
    try:
        repo = open_repo(wait_for_lock=True)
        graph = read_graph(repo, arguments.stages)
        for stage in arguments.stages:
            verbs[arguments.what](repo, graph[stage])
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"{arguments.what} {' '.join(arguments.stages)}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
