"""Plans what a run would do with each stage, and says why. It starts no stage and changes no file.

A stage is unchanged if dvc.lock agrees with the disk. It is restored if DVC's run-cache has the outputs for its inputs.
Otherwise it runs. The plan does not guess what happens downstream of a stage that runs: if the stage writes the same
bytes as before, the downstream stages stay unchanged.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from flows.pipeline.changes import changed_file, changed_params, short_hash, shorten_names
from flows.pipeline.dvc_adapter import Repo, is_params, is_run_cacheable, latest_entry, stage_of_entry
from flows.pipeline.graph import Node, read_graph
from flows.pipeline.receipts import read_receipt


class Verdict(StrEnum):
    UNCHANGED = "unchanged"
    RESTORE = "restore"
    RUN = "run"
    DEPENDS = "depends"


@dataclass(frozen=True)
class Decision:
    """What a run would do with a stage. `seconds` is how long its last run in this clone took; None if it never ran."""

    stage: str
    verdict: Verdict
    why: tuple[str, ...]
    pool: str
    gpus: int
    seconds: float | None
    upstream: tuple[str, ...]


@dataclass(frozen=True)
class PlanOptions:
    """How to plan.

    Args:
        force: run every stage.
        pull: outputs that this clone lacks may come from the remote.
        remote_pools: pools whose stages run on workers; this clone need not have their outputs.
        lost: stages whose outputs are neither in this clone nor in the remote.
    """

    force: bool = False
    pull: bool = False
    remote_pools: Sequence[str] = ()
    lost: Sequence[str] = ()


def make_plan(repo: Repo, targets: Sequence[str] = (), options: PlanOptions = PlanOptions()) -> list[Decision]:
    """Returns one decision per stage, upstream stages first."""
    future_outs: dict[str, Any] = {}  # by path, the outputs after the run; None if unknown until their stage has run
    uncertain_stages: set[str] = set()  # stages whose outputs are unknown until they have run
    changing_outs: dict[str, str] = {}  # the paths of outputs that will change on the disk: the stages that write them
    decisions = []
    for node in read_graph(repo, targets).values():
        verdict, why = decide(node, future_outs, uncertain_stages, options)
        changing_upstream = {name for path, name in changing_outs.items() if overlaps(path, node.dvc.deps)}
        if changing_upstream and verdict is not Verdict.RUN and not node.dvc.frozen:
            verdict, why = Verdict.DEPENDS, [f"depends on {shorten_names(sorted(changing_upstream))}", *why]
        if verdict in (Verdict.RUN, Verdict.DEPENDS):
            uncertain_stages.add(node.name)
            future_outs.update({out.fs_path: None for out in node.dvc.outs})
        if verdict is not Verdict.UNCHANGED:
            changing_outs |= {out.fs_path: node.name for out in node.dvc.outs}
        seconds = read_receipt(node.name).get("seconds")
        decisions.append(Decision(node.name, verdict, tuple(why), node.pool, node.gpus, seconds, node.upstream))
    return decisions


def overlaps(path: str, deps: Sequence[Any]) -> bool:
    """Returns True if a dep is inside the output `path`, or the output inside a dep. Then their hashes cannot be
    compared: only hashes of equal paths can."""
    pairs = [(Path(path), Path(dep.fs_path)) for dep in deps if not is_params(dep)]
    return any(out != dep and (out.is_relative_to(dep) or dep.is_relative_to(out)) for out, dep in pairs)


def decide(
    node: Node, future_outs: dict[str, Any], uncertain_stages: set[str], options: PlanOptions
) -> tuple[Verdict, list[str]]:
    """Returns the verdict on one stage and its reasons. Adds the stage's outputs to `future_outs` if they are known."""
    stage = node.dvc
    in_lock = any(item.hash_info for item in stage.outs or stage.deps)
    missing = [line for out in stage.outs for line in changed_file(out, "output") if in_lock]
    only_missing = all("is not" in line for line in missing)
    if len(missing) > 1 and only_missing:
        missing = [f"{len(missing)} outputs are not here"]
    if stage.frozen or (stage.is_data_source and not stage.is_import):  # DVC uses the files on the disk
        frozen = ["frozen in dvc.yaml"] if stage.frozen else []
        if missing and not (only_missing and options.pull):
            return Verdict.RUN, [*frozen, *missing]
        future_outs.update({out.fs_path: out for out in stage.outs})
        return Verdict.UNCHANGED, frozen
    why = changed_inputs(node, future_outs) if in_lock else ["not in dvc.lock: never run at this commit"]
    uncertain = [name for name in node.upstream if name in uncertain_stages]
    if options.force:
        return Verdict.RUN, ["--force"]
    if stage.is_callback or stage.always_changed:
        return Verdict.RUN, ["it is marked to run always"]
    if uncertain:
        return Verdict.DEPENDS, [f"depends on {shorten_names(uncertain)}", *(why if in_lock else [])]
    if node.name in options.lost:
        return Verdict.RUN, [*why, *missing, "nor in the remote"]
    if not why and (not missing or (only_missing and node.pool in options.remote_pools)):
        future_outs.update({out.fs_path: out for out in stage.outs})
        return Verdict.UNCHANGED, ["its outputs are in the remote"] if missing else []
    result = cached_result(node, future_outs, options.pull, as_locked=not why)
    if result is not None:
        future_outs.update({out.fs_path: out for out in result.outs})
        return Verdict.RESTORE, [*why, *missing]
    return Verdict.RUN, [*why, *missing]


def changed_inputs(node: Node, future_outs: dict[str, Any]) -> list[str]:
    """Returns a line for each difference from dvc.lock: command, params and dependencies."""
    stage, why = node.dvc, []
    if getattr(stage, "cmd_changed", False):  # an import has no command
        why.append("the command changed")
    for dep in stage.deps:
        if is_params(dep):
            why += changed_params(dep)
        elif dep.fs_path not in future_outs:
            why += changed_file(dep, "dep")
        elif (new := future_outs[dep.fs_path]) is not None and new.hash_info != dep.hash_info:
            why.append(f"dep {dep.def_path}: {short_hash(dep.hash_info)} -> {short_hash(new.hash_info)}")
    return why


def cached_result(node: Node, future_outs: dict[str, Any], pull: bool, as_locked: bool) -> Any:
    """Returns a DVC stage with the outputs that dvc.lock (if `as_locked`) or the run-cache has for these inputs; None
    if there are none, or if their files are lost.

    It decides as `dvc repro` does (`StageCache.restore`), but uses `future_outs` for the outputs of upstream stages
    instead of the files that are on the disk now.
    """
    stage = node.dvc
    if as_locked:
        return stage if pull or stage.outs_cached() else None
    for dep in stage.deps:
        if future_outs.get(dep.fs_path) is not None:
            # DVC writes the md5 of `meta`, not that of `hash_info`
            dep.hash_info, dep.meta = future_outs[dep.fs_path].hash_info, future_outs[dep.fs_path].meta
        elif dep.exists:
            dep.save()
        else:
            return None
    if not is_run_cacheable(stage) or (entry := latest_entry(stage)) is None:
        return None
    result = stage_of_entry(stage, entry)
    return result if result is not None and (pull or result.outs_cached()) else None
