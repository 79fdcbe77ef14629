"""How flows/ is built: which module may import what."""

import ast
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from flows.pipeline import receipts
from stages.runtime import receipt
from tests.conftest import ROOT

ADAPTER = "flows.pipeline.dvc_adapter"
PUBLIC = ("dvc.api", "dvc.exceptions")
LAYERS = ("flows.errors", "flows.pipeline", "flows.processes", "flows.sharing")  # each imports of those before alone
TOP = {
    "__init__", "compare", "errors", "live", "new_data", "plan", "recipe", "repair", "run", "worker",
}  # fmt: skip


def modules() -> dict[str, ast.Module]:
    """The modules of flows/ by name, without packages' __init__."""
    paths = [path for path in (ROOT / "flows").rglob("*.py") if path.name != "__init__.py"]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in paths
    }


def imports(tree: ast.Module) -> Iterator[str]:
    """Names of the modules that it imports, or of what it takes from one: `from a import b` gives a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_the_adapter_uses_dvcs_internals() -> None:
    found = {
        name: [
            one for one in imports(tree)
            if one.split(".")[0] in ("dvc", "dvc_data", "dvc_objects", "voluptuous") and not one.startswith(PUBLIC)
        ]
        for name, tree in modules().items()
    }  # fmt: skip
    assert found.pop(ADAPTER)
    assert {name: used for name, used in found.items() if used} == {}


def test_no_other_module_uses_a_private_name_of_anything() -> None:
    found = {
        (name, node.attr)
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
        and name != ADAPTER
    }  # fmt: skip
    assert found == set()


@pytest.fixture(scope="module")
def graph() -> nx.DiGraph:
    """An edge from each module to those of flows/ that it imports."""
    trees = modules()
    graph = nx.DiGraph()
    for name, tree in trees.items():
        for one in imports(tree):
            graph.add_edges_from((name, of) for of in (one, one.rpartition(".")[0]) if of in trees)
    return graph


def test_no_circle(graph: nx.DiGraph) -> None:
    assert list(nx.simple_cycles(graph)) == []
    assert len(graph) > 20


def test_packages_import_downwards(graph: nx.DiGraph) -> None:
    def layer(name: str) -> int:
        return next((n for n, package in enumerate(LAYERS) if name.startswith(package)), len(LAYERS))

    assert [edge for edge in graph.edges if layer(edge[0]) < layer(edge[1])] == []


def test_the_top_holds_what_one_types_and_what_prefect_yaml_names() -> None:
    assert {path.stem for path in (ROOT / "flows").glob("*.py")} == TOP


@pytest.mark.parametrize(
    ("stage", "file"),
    [
        ("train_head", "train_head.json"),
        ("pipelines/folds/dvc.yaml:train_head@0", "pipelines/folds/train_head@0.json"),
        ("../dvc.yaml:split", "split.json"),  # a user who typed `dvc repro` in a subfolder
        ("make@a:b/c", "make@a:b/c.json"),
    ],
)
def test_flows_reads_a_receipt_where_stages_write_it(stage: str, file: str) -> None:
    assert receipt.path(stage) == receipts.receipt_path(stage) == Path(".unfreeze/receipts") / file
