"""The graph of stages as DVC has it: which stage needs which, in the order of `dvc repro`, and where each runs.

Reads; takes no lock, starts nothing. A target is what `dvc repro` takes too: a stage (`split`, or
`pipelines/folds/dvc.yaml:split@0` of another dvc.yaml), all instances of a matrix (`pipelines/folds/dvc.yaml:split`),
or a dvc.yaml with all its stages (`pipelines/folds/dvc.yaml`).
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException

from flows.errors import PipelineError
from flows.pipeline.dvc_adapter import PIPELINE, Repo, active_graph
from flows.pipeline.path_params import check_paths

CPU, GPU = "cpu", "gpu"
ADDRESS = re.compile(r"(?:(?P<folder>.*?)/?dvc\.yaml:)?(?P<name>.*)", re.DOTALL)


@dataclass(frozen=True)
class Node:
    """A stage. `dvc` is DVC's own object.

    Args:
        name: the address that DVC prints: `split`, or `pipelines/folds/dvc.yaml:split@0`.
        pool: the work pool of its `meta`; empty for what runs no command: data that `dvc add` or `dvc import` keeps.
        gpus: how many GPUs a stage of the pool gpu needs (`meta: {pool: gpu, gpus: 2}`).
        upstream: addresses of the stages whose outputs it reads.
    """

    name: str
    pool: str
    gpus: int
    upstream: tuple[str, ...]
    dvc: Any


def split_address(stage: str) -> tuple[str, str]:
    """(folder of its dvc.yaml, empty for the top one; its name in there)."""
    found = ADDRESS.fullmatch(stage)
    return (found["folder"] or "", found["name"]) if found else ("", stage)


def read_graph(repo: Repo, targets: Sequence[str] = ()) -> dict[str, Node]:
    """The stages that `dvc repro TARGETS` would look at, by address, upstream first; without targets all of dvc.yaml.

    Raises:
        PipelineError: a dvc.yaml cannot be read, or a target is none of its stages.
    """
    graph, stages = _stages(repo)
    if not (Path(repo.root_dir) / PIPELINE).exists():
        raise PipelineError(f"no {PIPELINE} in {repo.root_dir}: run it from the top folder of the project")
    wanted = [stages[name] for target in targets or [PIPELINE] for name in _matching(target, stages)]
    return {stage.addressing: _node(stage, graph) for stage in in_order(graph, wanted)}


def all_stages(repo: Repo) -> dict[str, Node]:
    """Those of every dvc.yaml, and .dvc files, by address. Raises PipelineError: one of them cannot be read."""
    graph, stages = _stages(repo)
    return {name: _node(stage, graph) for name, stage in stages.items()}


def _stages(repo: Repo) -> tuple[Any, dict[str, Any]]:
    """(DVC's graph, its stages by address)."""
    check_paths(Path(repo.root_dir))
    try:
        graph = active_graph(repo)
        return graph, {stage.addressing: stage for stage in graph}
    except DvcException as error:
        raise PipelineError(f"{PIPELINE}: {error}") from error


def _matching(target: str, stages: dict[str, Any]) -> list[str]:
    """Addresses of the stages that a target names. Raises PipelineError: there are none."""
    if target in stages:
        return [target]
    file, _, name = target.rpartition(":")
    if Path(target).name == PIPELINE:
        file, name = target, ""
    file = os.path.normpath(file or PIPELINE)
    of_file = {address: stage for address, stage in stages.items() if os.path.normpath(stage.path_in_repo) == file}
    found = [address for address, stage in of_file.items() if not name or name in _names(stage)]
    if found:
        return found
    if not of_file:
        files = sorted({stage.path_in_repo for stage in stages.values() if getattr(stage, "name", None)})
        raise PipelineError(f"no stages in {file}; the files with stages are {', '.join(files)}")
    raise PipelineError(f"no stage {name} in {file}; there are {', '.join(of_file)}")


def _names(stage: Any) -> tuple[str, str]:
    """(its own, that of its matrix)."""
    return stage.name, stage.name.partition("@")[0]


def _node(stage: Any, graph: Any) -> Node:
    meta = stage.meta or {}
    gpus = meta.get("gpus", 1)
    if not isinstance(gpus, int) or isinstance(gpus, bool) or gpus < 1:
        raise PipelineError(f"{stage.addressing}: meta.gpus in {stage.path_in_repo} is {gpus!r}: expected 1 or more")
    return Node(
        name=stage.addressing,
        pool=meta.get("pool", CPU) if stage.cmd else "",
        gpus=gpus,
        upstream=tuple(sorted(up.addressing for up in graph.successors(stage))),
        dvc=stage,
    )


def in_order(graph: Any, targets: Iterable[Any]) -> list[Any]:
    """The targets and all that they need, upstream first, as dvc.yaml lists them.

    It is DVC's own order, except where they are less than half of all stages: then networkx walks a set, and
    `dvc repro` takes another order each time.
    """
    needed = {stage for target in targets for stage in nx.dfs_postorder_nodes(graph, target)}
    found = [up for stage in graph if stage in needed for up in nx.dfs_postorder_nodes(graph, stage)]
    return list(dict.fromkeys(found))
