"""DVC's own graph of the pipeline in dvc.yaml: who needs whom, in the order of `dvc repro`, and where each runs.

Reads; takes no lock, starts nothing. DVC has no public API for its graph: `Repo.index.graph` (edges from a stage to
what it depends on) has stood since 1.0 and is what `dvc repro` itself walks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.reproduce import get_active_graph

PIPELINE = "dvc.yaml"


class PipelineError(Exception):
    """Speaks to the person who must act: what was found, where, what was expected, what to do next."""


@dataclass(frozen=True)
class Node:
    """A stage; `upstream` are the stages whose results it reads. `dvc` is DVC's own object.

    `pool`: empty for what runs no command: data that `dvc add` or `dvc import` keeps.
    """

    name: str
    pool: str
    upstream: tuple[str, ...]
    dvc: Any


def open_repo(wait_for_lock: bool = False) -> Repo:
    """Of the current folder."""
    try:
        return Repo(_wait_for_lock=wait_for_lock)
    except DvcException as error:
        raise PipelineError(f"{Path.cwd()}: {error}") from error


def read_graph(repo: Repo, targets: Sequence[str] = ()) -> dict[str, Node]:
    """The stages that `dvc repro TARGETS` would look at, by name, upstream first; without targets all of dvc.yaml.

    Raises:
        PipelineError: dvc.yaml cannot be read, or a target is none of its stages.
    """
    try:
        graph = get_active_graph(repo.index.graph)
        known = {stage.addressing: stage for stage in graph}
        own = [name for name, stage in known.items() if Path(stage.path_in_repo) == Path(PIPELINE)]
    except DvcException as error:
        raise PipelineError(f"{PIPELINE}: {error}") from error
    if not (Path(repo.root_dir) / PIPELINE).exists():
        raise PipelineError(f"no {PIPELINE} in {repo.root_dir}: run it from the top folder of the project")
    if unknown := [target for target in targets if target not in known]:
        raise PipelineError(f"no stage {', '.join(unknown)} in {PIPELINE}; there are {', '.join(own)}")
    order = in_order(graph, [known[name] for name in targets or own])
    return {
        stage.addressing: Node(
            name=stage.addressing,
            pool=(stage.meta or {}).get("pool", "cpu") if stage.cmd else "",
            upstream=tuple(sorted(up.addressing for up in graph.successors(stage))),
            dvc=stage,
        )
        for stage in order
    }


def in_order(graph: Any, targets: Sequence[Any]) -> list[Any]:
    """The targets and all that they need, upstream first, as dvc.yaml lists them.

    It is DVC's own order, but where they are less than half of all stages: then networkx walks a set, and `dvc repro`
    takes another order each time.
    """
    needed = {stage for target in targets for stage in nx.dfs_postorder_nodes(graph, target)}
    found = [up for stage in graph if stage in needed for up in nx.dfs_postorder_nodes(graph, stage)]
    return list(dict.fromkeys(found))
