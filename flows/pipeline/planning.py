"""What a run would do with each stage, and why. Starts no stage and changes nothing.

A stage is unchanged where dvc.lock agrees with the disk; it is restored where DVC's run-cache has the outputs for its
inputs; otherwise it runs. Nothing is guessed about the stages below one that runs: if it writes the same bytes as
before, they stay as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from flows.pipeline.changes import changed_file, changed_params, short, shorten
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
    """What is to be done with a stage. `seconds`: what it took when it last ran in this clone; None where it never
    did."""

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
        pull: outputs that are not here may come from the remote.
        remote_pools: pools whose stages run on workers: their outputs need not be here.
        lost: stages whose outputs are neither here nor in the remote.
    """

    force: bool = False
    pull: bool = False
    remote_pools: Sequence[str] = ()
    lost: Sequence[str] = ()


def make_plan(repo: Repo, targets: Sequence[str] = (), options: PlanOptions = PlanOptions()) -> list[Decision]:
    """One decision a stage, upstream first."""
    known: dict[str, Any] = {}  # outputs as they will be, by path; None: known only once their stage has run
    unsure: set[str] = set()  # stages whose outputs are not known before they have run
    changing: dict[str, str] = {}  # outputs that will differ from what lies on the disk now: their stages
    decisions = []
    for node in read_graph(repo, targets).values():
        verdict, why = decide(node, known, unsure, options)
        parts = {name for path, name in changing.items() if overlaps(path, node.dvc.deps)}
        if parts and verdict is not Verdict.RUN and not node.dvc.frozen:
            verdict, why = Verdict.DEPENDS, [f"depends on {shorten(sorted(parts))}", *why]
        if verdict in (Verdict.RUN, Verdict.DEPENDS):
            unsure.add(node.name)
            known.update({out.fs_path: None for out in node.dvc.outs})
        if verdict is not Verdict.UNCHANGED:
            changing |= {out.fs_path: node.name for out in node.dvc.outs}
        seconds = read_receipt(node.name).get("seconds")
        decisions.append(Decision(node.name, verdict, tuple(why), node.pool, node.gpus, seconds, node.upstream))
    return decisions


def overlaps(path: str, deps: Sequence[Any]) -> bool:
    """Is a dep a part of that output, or the output a part of the dep? Hashes of equal paths alone can be compared."""
    pairs = [(Path(path), Path(dep.fs_path)) for dep in deps if not is_params(dep)]
    return any(out != dep and (out.is_relative_to(dep) or dep.is_relative_to(out)) for out, dep in pairs)


def decide(node: Node, known: dict[str, Any], unsure: set[str], options: PlanOptions) -> tuple[Verdict, list[str]]:
    """The verdict on one stage; enters its outputs into `known` where they are certain."""
    stage = node.dvc
    in_lock = any(item.hash_info for item in stage.outs or stage.deps)
    missing = [line for out in stage.outs for line in changed_file(out, "output") if in_lock]
    only_missing = all("is not" in line for line in missing)
    if len(missing) > 1 and only_missing:
        missing = [f"{len(missing)} outputs are not here"]
    if stage.frozen or (stage.is_data_source and not stage.is_import):  # DVC takes what lies on the disk
        frozen = ["frozen in dvc.yaml"] if stage.frozen else []
        if missing and not (only_missing and options.pull):
            return Verdict.RUN, [*frozen, *missing]
        known.update({out.fs_path: out for out in stage.outs})
        return Verdict.UNCHANGED, frozen
    why = changed_inputs(node, known) if in_lock else ["not in dvc.lock: never run at this commit"]
    uncertain = [name for name in node.upstream if name in unsure]
    if options.force:
        return Verdict.RUN, ["--force"]
    if stage.is_callback or stage.always_changed:
        return Verdict.RUN, ["it is marked to run always"]
    if uncertain:
        return Verdict.DEPENDS, [f"depends on {shorten(uncertain)}", *(why if in_lock else [])]
    if node.name in options.lost:
        return Verdict.RUN, [*why, *missing, "nor in the remote"]
    if not why and (not missing or (only_missing and node.pool in options.remote_pools)):
        known.update({out.fs_path: out for out in stage.outs})
        return Verdict.UNCHANGED, ["its outputs are in the remote"] if missing else []
    found = cached_result(node, known, options.pull, as_locked=not why)
    if found is not None:
        known.update({out.fs_path: out for out in found.outs})
        return Verdict.RESTORE, [*why, *missing]
    return Verdict.RUN, [*why, *missing]


def changed_inputs(node: Node, known: dict[str, Any]) -> list[str]:
    """What differs from dvc.lock: command, params and dependencies, one line each."""
    stage, why = node.dvc, []
    if getattr(stage, "cmd_changed", False):  # an import has none
        why.append("the command changed")
    for dep in stage.deps:
        if is_params(dep):
            why += changed_params(dep)
        elif dep.fs_path not in known:
            why += changed_file(dep, "dep")
        elif (new := known[dep.fs_path]) is not None and new.hash_info != dep.hash_info:
            why.append(f"dep {dep.def_path}: {short(dep.hash_info)} -> {short(new.hash_info)}")
    return why


def cached_result(node: Node, known: dict[str, Any], pull: bool, as_locked: bool) -> Any:
    """The outputs that dvc.lock or the run-cache has for these inputs, as DVC's stage; None if there are none, or
    they are lost.

    Asks what `dvc repro` asks (`StageCache.restore`), but for the outputs of upstream stages takes what they are going
    to be instead of what lies on the disk now.
    """
    stage = node.dvc
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
    if not is_run_cacheable(stage) or (entry := latest_entry(stage)) is None:
        return None
    found = stage_of_entry(stage, entry)
    return found if found is not None and (pull or found.outs_cached()) else None
