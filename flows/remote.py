"""What a clone gets from the others and gives to them: `python -m flows.remote pull|push|look STAGE`.

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
from dvc.stage.cache import _can_hash, _get_cache_hash, _get_stage_hash
from dvc.stage.serialize import to_single_stage_lockfile
from dvc_objects.fs.generic import copy

from flows.graph import Node, PipelineError, open_repo, read_graph
from flows.lock import entries
from flows.plan import own_changes, remembered


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
    fetch_run_cache(repo)
    upstream = read_graph(repo, [node.name])
    made = {out.fs_path: out for name in node.upstream for out in upstream[name].dvc.outs if out.hash_info}
    wanted = [dep.def_path for dep in node.dvc.deps if dep.fs_path in made and made[dep.fs_path].status()]
    if wanted:
        repo.pull(targets=wanted, force=True)
    locked = any(out.hash_info for out in node.dvc.outs)
    result = remembered(node, made, pull=True, as_locked=locked and not own_changes(node, made))
    if result is not None:
        transfer(result.get_used_objs(), repo.cloud.pull)


def push(repo: Repo, node: Node) -> None:
    """The stage's outputs, then its entry in the run-cache."""
    runs, stage = repo.stage_cache, node.dvc
    if not _can_hash(stage):
        transfer(stage.get_used_objs(), repo.cloud.push)
        return
    key, value = _get_stage_hash(stage), _get_cache_hash(to_single_stage_lockfile(stage))
    entry = runs._load_cache(key, value)
    made = runs._create_stage(entry, wdir=stage.wdir) if entry else stage
    transfer(made.get_used_objs(), repo.cloud.push)
    if entry:
        remote = repo.cloud.get_remote_odb(None, "push", hash_name="md5-dos2unix")
        path = runs._get_cache_path(key, value)
        relative = Path(path).relative_to(repo.cache.legacy.path).as_posix()
        copy(repo.cache.legacy.fs, path, remote.fs, remote.fs.join(remote.path, relative))


def look(repo: Repo, node: Node) -> None:
    """Metrics and plots of a stage that another clone ran: small, and what people want to see."""
    runs, shown = repo.stage_cache, {out.def_path for out in node.dvc.outs if out.metric or out.plot}
    if shown:
        for out in runs._create_stage(entries(repo)[node.name], wdir=node.dvc.wdir).outs:
            if out.def_path in shown:
                transfer({None: {out.hash_info}}, repo.cloud.pull)
                with runs._cache_type_copy():  # some of them are git's to keep
                    out.checkout(force=True)


def fetch_run_cache(repo: Repo) -> None:
    """What is not here yet."""
    remote = repo.cloud.get_remote_odb(None, "pull", hash_name="md5-dos2unix")
    repo.stage_cache.transfer(remote, repo.cache.legacy, force=False)


def transfer(used: Any, move: Any) -> None:
    for objects in used.values():
        if failed := move(objects).failed:
            raise PipelineError(f"{len(failed)} files could not be transferred, {next(iter(failed))} among them")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.remote", description=__doc__)
    parser.add_argument("what", choices=["pull", "push", "look"])
    parser.add_argument("stage", metavar="STAGE")
    arguments = parser.parse_args()
    try:
        repo = open_repo(wait_for_lock=True)
        if not shared(repo):
            node = read_graph(repo, [arguments.stage])[arguments.stage]
            {"pull": pull, "push": push, "look": look}[arguments.what](repo, node)
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"{arguments.what} {arguments.stage}: {' '.join(str(error).split())}")


if __name__ == "__main__":
    main()
