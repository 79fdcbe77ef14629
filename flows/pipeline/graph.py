"""Reads DVC's graph of stages: what each stage depends on, the order of `dvc repro`, and the pool of each stage.

This module takes no lock and starts no program. A target means the same as for `dvc repro`: a stage (`split`, or in
another dvc.yaml `pipelines/folds/dvc.yaml:split@0`), all instances of a matrix (`pipelines/folds/dvc.yaml:split`), or
all stages of a dvc.yaml (`pipelines/folds/dvc.yaml`).
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
    """A stage of the graph.

    Args:
        name: the stage's DVC address: `split`, or `pipelines/folds/dvc.yaml:split@0`.
        pool: the work pool that `meta` in dvc.yaml names. It is empty if the stage has no command, as for data that was
            added with `dvc add` or `dvc import`.
        gpus: how many GPUs the stage needs if its pool is gpu (`meta: {pool: gpu, gpus: 2}`).
        upstream: the addresses of the stages whose outputs this stage reads.
        dvc: DVC's `Stage`.
    """

    name: str
    pool: str
    gpus: int
    upstream: tuple[str, ...]
    dvc: Any


def split_address(stage: str) -> tuple[str, str]:
    """Returns the folder of the stage's dvc.yaml (empty for the top folder) and the stage's name in that file."""
    match = ADDRESS.fullmatch(stage)
    return (match["folder"] or "", match["name"]) if match else ("", stage)


def read_graph(repo: Repo, targets: Sequence[str] = ()) -> dict[str, Node]:
    """Returns the stages that `dvc repro TARGETS` would check, by address, upstream stages first. Without targets it
    returns all stages of dvc.yaml and the stages that they depend on.

    Raises:
        PipelineError: a dvc.yaml cannot be read, or a target names no stage.
    """
    graph, stages = _stages(repo)
    if not (Path(repo.root_dir) / PIPELINE).exists():
        raise PipelineError(f"no {PIPELINE} in {repo.root_dir}: run the command in the top folder of the project")
    target_stages = [stages[name] for target in targets or [PIPELINE] for name in _matching(target, stages)]
    return {stage.addressing: _node(stage, graph) for stage in in_order(graph, target_stages)}


def all_stages(repo: Repo) -> dict[str, Node]:
    """Returns the stages of all dvc.yaml and .dvc files by address. Raises PipelineError if a file cannot be read."""
    graph, stages = _stages(repo)
    return {name: _node(stage, graph) for name, stage in stages.items()}


def _stages(repo: Repo) -> tuple[Any, dict[str, Any]]:
    """Returns DVC's graph, and its stages by address."""
    check_paths(Path(repo.root_dir))
    try:
        graph = active_graph(repo)
        return graph, {stage.addressing: stage for stage in graph}
    except DvcException as error:
        raise PipelineError(f"{PIPELINE}: {error}") from error


def _matching(target: str, stages: dict[str, Any]) -> list[str]:
    """Returns the addresses of the stages that a target names. Raises PipelineError if it names none."""
    if target in stages:
        return [target]
    file, _, name = target.rpartition(":")
    if Path(target).name == PIPELINE:
        file, name = target, ""
    file = os.path.normpath(file or PIPELINE)
    in_file = {address: stage for address, stage in stages.items() if os.path.normpath(stage.path_in_repo) == file}
    addresses = [address for address, stage in in_file.items() if not name or name in _names(stage)]
    if addresses:
        return addresses
    if not in_file:
        files = sorted({stage.path_in_repo for stage in stages.values() if getattr(stage, "name", None)})
        raise PipelineError(f"no stages in {file}; the files with stages are {', '.join(files)}")
    raise PipelineError(f"no stage {name} in {file}; there are {', '.join(in_file)}")


def _names(stage: Any) -> tuple[str, str]:
    """Returns the stage's own name and the name of its matrix."""
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
    """Returns the targets and the stages they depend on: upstream stages first, otherwise in the order of dvc.yaml.

    `dvc repro` uses the same order if at least half of all stages are needed. If fewer are needed, the order of
    `dvc repro`, but not of this function, changes from run to run, because networkx then iterates over a set.
    """
    needed = {stage for target in targets for stage in nx.dfs_postorder_nodes(graph, target)}
    ordered = [upstream for stage in graph if stage in needed for upstream in nx.dfs_postorder_nodes(graph, stage)]
    return list(dict.fromkeys(ordered))
