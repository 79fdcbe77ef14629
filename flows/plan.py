"""What a run would do, and why: `python -m flows.plan [STAGE...]`. Starts no stage, needs no server, changes nothing.

A stage stays where dvc.lock agrees with the disk; is restored where DVC's run-cache knows what its inputs gave; else it
runs. Below a stage that runs nothing is guessed: bytes that come out equal would stop the change there.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import _get_cache_hash
from dvc.stage.serialize import to_single_stage_lockfile

from flows.pages.table import console, shorten
from flows.pipeline.changes import changed_file, changed_params, short
from flows.pipeline.graph import Node, PipelineError, open_repo, read_graph
from flows.processes.stage import read_receipt


class Verdict(StrEnum):
    STAY = "unchanged"
    RESTORE = "restore"
    RUN = "run"
    DEPENDS = "depends"


@dataclass(frozen=True)
class Decision:
    """`seconds`: what the stage took when it last ran in this clone; None where it never did."""

    stage: str
    verdict: Verdict
    why: tuple[str, ...]
    pool: str
    seconds: float | None
    upstream: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """`pull`: what is not here may come from the remote. `away`: pools whose outputs need not be here; `lost`: stages
    whose outputs are not in the remote either."""

    force: bool = False
    pull: bool = False
    away: Sequence[str] = ()
    lost: Sequence[str] = ()


def plan(repo: Repo, targets: Sequence[str] = (), wish: Wish = Wish()) -> list[Decision]:
    """One decision a stage, upstream first."""
    known: dict[str, Any] = {}  # outputs as they will be, by path; None: a stage that must run will say
    unsure: set[str] = set()  # stages of which we do not know what they will give
    moving: dict[str, str] = {}  # outputs that will not be what lies on the disk now: their stages
    decisions = []
    for node in read_graph(repo, targets).values():
        verdict, why = decide(node, known, unsure, wish)
        parts = {name for path, name in moving.items() if partly(path, node.dvc.deps)}
        if parts and verdict is not Verdict.RUN and not node.dvc.frozen:
            verdict, why = Verdict.DEPENDS, [f"depends on {few(sorted(parts))}", *why]
        if verdict in (Verdict.RUN, Verdict.DEPENDS):
            unsure.add(node.name)
            known.update({out.fs_path: None for out in node.dvc.outs})
        if verdict is not Verdict.STAY:
            moving |= {out.fs_path: node.name for out in node.dvc.outs}
        decisions.append(
            Decision(node.name, verdict, tuple(why), node.pool, read_receipt(node.name).get("seconds"), node.upstream)
        )
    return decisions


def partly(path: str, deps: Sequence[Any]) -> bool:
    """Is a dep a part of that output, or the output a part of the dep? Hashes of equal paths alone can be compared."""
    pairs = [(Path(path), Path(dep.fs_path)) for dep in deps if not isinstance(dep, ParamsDependency)]
    return any(out != dep and (out.is_relative_to(dep) or dep.is_relative_to(out)) for out, dep in pairs)


def decide(node: Node, known: dict[str, Any], unsure: set[str], wish: Wish) -> tuple[Verdict, list[str]]:
    """The verdict on one stage; enters its outputs into `known` where they are certain."""
    stage = node.dvc
    locked = any(one.hash_info for one in stage.outs or stage.deps)
    missing = [line for out in stage.outs for line in changed_file(out, "output") if locked]
    gone = all("is not" in line for line in missing)
    if len(missing) > 1 and gone:
        missing = [f"{len(missing)} outputs are not here"]
    if stage.frozen or (stage.is_data_source and not stage.is_import):  # DVC takes what lies on the disk
        frozen = ["frozen in dvc.yaml"] if stage.frozen else []
        if missing and not (gone and wish.pull):
            return Verdict.RUN, [*frozen, *missing]
        known.update({out.fs_path: out for out in stage.outs})
        return Verdict.STAY, frozen
    why = own_changes(node, known) if locked else ["not in dvc.lock: never run at this commit"]
    uncertain = [name for name in node.upstream if name in unsure]
    if wish.force:
        return Verdict.RUN, ["--force"]
    if stage.is_callback or stage.always_changed:
        return Verdict.RUN, ["it is marked to run always"]
    if uncertain:
        return Verdict.DEPENDS, [f"depends on {few(uncertain)}", *(why if locked else [])]
    if node.name in wish.lost:
        return Verdict.RUN, [*why, *missing, "nor in the remote"]
    if not why and (not missing or (gone and node.pool in wish.away)):
        known.update({out.fs_path: out for out in stage.outs})
        return Verdict.STAY, ["its outputs lie in the remote"] if missing else []
    entry = remembered(node, known, wish.pull, as_locked=not why)
    if entry is not None:
        known.update({out.fs_path: out for out in entry.outs})
        return Verdict.RESTORE, [*why, *missing]
    return Verdict.RUN, [*why, *missing]


def few(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def own_changes(node: Node, known: dict[str, Any]) -> list[str]:
    stage, why = node.dvc, []
    if getattr(stage, "cmd_changed", False):  # an import has none
        why.append("the command changed")
    for dep in stage.deps:
        if isinstance(dep, ParamsDependency):
            why += changed_params(dep)
        elif dep.fs_path not in known:
            why += changed_file(dep, "dep")
        elif (new := known[dep.fs_path]) is not None and new.hash_info != dep.hash_info:
            why.append(f"dep {dep.def_path}: {short(dep.hash_info)} -> {short(new.hash_info)}")
    return why


def remembered(node: Node, known: dict[str, Any], pull: bool, as_locked: bool) -> Any:
    """What the lock or the run-cache says that these inputs give, as DVC's stage; None if nothing, or it is lost.

    Asks what `dvc repro` asks (`StageCache.restore`), with the upstream outputs as they are going to be in the
    place of what lies on the disk now.
    """
    stage, cache = node.dvc, node.dvc.repo.stage_cache
    if as_locked:
        return stage if pull or stage.outs_cached() else None
    for dep in stage.deps:
        if known.get(dep.fs_path) is not None:
            # `meta` has an md5 of its own, and that is the one DVC writes
            dep.hash_info, dep.meta = known[dep.fs_path].hash_info, known[dep.fs_path].meta
        elif dep.exists:
            dep.save()
        else:
            return None
    if not keeps(stage) or (path := newest(cache, stage)) is None:
        return None
    found = cache._create_stage(cache._load_cache(path.parent.name, path.name), wdir=stage.wdir)
    return found if pull or found.outs_cached() else None


def keeps(stage: Any) -> bool:
    """Does DVC's run-cache keep such a stage? As `_can_hash` there, which also hashes every dep on the disk."""
    outs = all(out.protocol == "local" and out.is_in_repo and not out.persist for out in stage.outs)
    return bool(stage.cmd and stage.deps and stage.outs and outs and all(d.protocol == "local" for d in stage.deps))


def newest(cache: Any, stage: Any) -> Path | None:
    """The entry that DVC would take; as `StageCache._load`, which insists on deps that are on the disk."""
    key = _get_cache_hash(to_single_stage_lockfile(stage), key=True)
    entries = sorted(Path(cache._get_cache_dir(key)).glob("*"), key=lambda path: path.stat().st_mtime)
    return entries[-1] if entries else None


def show(decisions: list[Decision]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("stage", "it would", "why", "last time", "pool", title="What a run would do")
    words = {
        Verdict.STAY: "stay",
        Verdict.RESTORE: "be restored",
        Verdict.RUN: "run",
        Verdict.DEPENDS: "run, if those change",
    }
    colours = {Verdict.STAY: "dim", Verdict.RESTORE: "cyan", Verdict.RUN: "bold yellow", Verdict.DEPENDS: "yellow"}
    for one in decisions:
        seconds = "" if one.seconds is None else f"{one.seconds:,.1f} s"
        cells = (one.stage, words[one.verdict], shorten(one.why), seconds, one.pool)
        table.add_row(*map(escape, cells), style=colours[one.verdict])
    console(table)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m flows.plan", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="with what they depend on; default: all of dvc.yaml")
    parser.add_argument("-f", "--force", action="store_true", help="as if nothing were remembered")
    parser.add_argument("--pull", action="store_true", help="what is not here may come from the DVC remote")
    parser.add_argument("--json", action="store_true", help="for programs")
    arguments = parser.parse_args()
    try:
        decisions = plan(open_repo(), arguments.stages, Wish(arguments.force, arguments.pull))
    except (PipelineError, DvcException, OSError) as error:
        sys.exit(f"plan: {' '.join(str(error).split())}")
    if arguments.json:
        print(json.dumps([asdict(one) for one in decisions], indent=2))
    else:
        show(decisions)


if __name__ == "__main__":
    main()
