"""dvc.yaml against the code: `deps` are the modules that a stage imports, `params` the sections that it reads."""

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.runtime.params import SECTIONS, SECTIONS_NOT_IN_REPORT, SECTIONS_WITHOUT_EFFECT
from tests.conftest import Project

ROOT = Path(__file__).parent.parent
STAGES: dict[str, Any] = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
ALL_PARAMS: dict[str, Any] = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def first_party_imports(path: Path, seen: set[Path]) -> set[Path]:
    """Modules of ours that `path` imports, at any depth, wherever the import stands."""
    seen.add(ROOT / "stages/__init__.py")  # runs before any of them
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            module = ROOT / f"{name.replace('.', '/')}.py"
            if name.startswith("stages") and module.is_file() and module not in seen:
                seen.add(module)
                first_party_imports(module, seen)
    return seen


def sections_read(paths: set[Path]) -> set[str]:
    """The first argument of every call of `load(...)`; all sections where `load_for_report()` is called.

    Without SECTIONS_WITHOUT_EFFECT: more room must not mean to train again."""
    found = set[str]()
    for node in (node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))):
        if not isinstance(node, ast.Call):
            continue
        called = getattr(node.func, "id", getattr(node.func, "attr", ""))
        if called == "load_for_report":
            found |= set(ALL_PARAMS) - set(SECTIONS_NOT_IN_REPORT)
        elif called == "load" and node.args and isinstance(node.args[0], ast.Constant):
            found.add(str(node.args[0].value))
    return found - set(SECTIONS_WITHOUT_EFFECT)


def packages(modules: set[Path]) -> set[str]:
    """What dvc.yaml names: stage modules themselves, of others the package that they lie in."""
    return {
        str(path.relative_to(ROOT) if path.parent == ROOT / "stages" else path.parent.relative_to(ROOT))
        for path in modules
    }


def code_deps(name: str) -> set[str]:
    module = ROOT / f"stages/{name}.py"
    modules = first_party_imports(module, {module})
    examples = {
        name for path in modules for name in re.findall(r'Path\("(examples/[^"]+)"\)', path.read_text(encoding="utf-8"))
    }
    return packages(modules) | examples


@pytest.mark.parametrize("name", STAGES)
def test_deps_are_the_packages_that_are_imported(name: str) -> None:
    declared = {dep for dep in STAGES[name]["deps"] if dep.startswith(("stages/", "examples/"))}
    assert declared == code_deps(name), f"mend deps of {name} in dvc.yaml"


def test_how_many_stages_each_package_reruns() -> None:
    """`pytest -s` prints the table. What people see, and how a model is given away, trains nothing."""
    users: dict[str, list[str]] = {}
    for name in STAGES:
        for dep in code_deps(name):
            users.setdefault(dep, []).append(name)
    found = {dep: names for dep, names in users.items() if not dep.endswith(".py")}
    for dep, names in sorted(found.items(), key=lambda item: -len(item[1])):
        print(f"{dep}: {len(names)} of {len(STAGES)} stages: {', '.join(names)}")
    trainings = {"precompute", "train_head", "augment", "train_full", "tta"}
    for dep in (
        "stages/reporting/figures",
        "stages/reporting/results",
        "stages/models/serving",
        "stages/dataset/reading",
    ):
        assert not trainings & set(found[dep]), dep


def test_no_package_that_is_a_dep_holds_another() -> None:
    """DVC takes a folder with all that lies below it: a stage would rerun for what it does not use."""
    deps = {dep for name in STAGES for dep in code_deps(name)}
    assert not [(one, other) for one in deps for other in deps if other.startswith(f"{one}/")]


def test_dvc_yaml_is_short() -> None:
    assert len((ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines()) <= 350


def test_deps_of_the_downloads_are_the_packages_that_are_imported() -> None:
    stages = YAML(typ="safe").load((ROOT / "data/dvc.yaml").read_text(encoding="utf-8"))["stages"]
    assert [set(stage["deps"]) for stage in stages.values()] == [code_deps("download")] * 3


def test_files_that_are_no_deps_hold_no_code() -> None:
    """A package's parent is imported with it and is no dep."""
    for parent in ("dataset", "training", "vision", "models", "reporting"):
        (only,) = ast.parse((ROOT / f"stages/{parent}/__init__.py").read_text(encoding="utf-8")).body
        assert isinstance(only, ast.Expr)


def test_the_sections_are_those_of_params_yaml() -> None:
    assert list(SECTIONS) == list(ALL_PARAMS)


@pytest.mark.parametrize("name", STAGES)
def test_params_are_the_sections_that_are_read(name: str) -> None:
    module = ROOT / f"stages/{name}.py"
    read = sections_read(first_party_imports(module, {module}))
    assert set(STAGES[name].get("params", [])) == read


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_owns_its_names(name: str) -> None:
    stage = STAGES[name]
    assert stage["cmd"] == f"python -m stages.{name}"
    folder = {"fetch": "data/raw/", "report": "data/evaluate/"}.get(name, f"data/{name}/")
    entries = [entry for key in ("outs", "metrics", "plots") for entry in stage.get(key, [])]
    paths = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]
    assert all(f"{path}/".startswith(folder) for path in paths)


@pytest.mark.parametrize("name", STAGES)
def test_the_run_cache_can_keep_it(name: str) -> None:
    """DVC keeps only stages with a command, a dep and an out, none of them `persist`."""
    stage = STAGES[name]
    entries = [entry for key in ("outs", "metrics", "plots") for entry in stage.get(key, [])]
    assert stage["deps"]
    assert entries
    assert "persist" not in str(entries)


def test_stages_import_neither_dvc_nor_prefect() -> None:
    for path in (ROOT / "stages").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {"dvc", "prefect"}, path


@pytest.mark.parametrize("name", [name for name in STAGES if name not in ("fetch", "ingest")])
def test_a_stage_runs_with_its_data_deps_and_with_none_fewer(name: str, reproduced: Project, tmp_path: Path) -> None:
    """`resize` also reads the pictures themselves: ingest's files.parquet has their sha256s, which it checks."""
    data = [dep for dep in STAGES[name]["deps"] if dep.startswith("data/")]
    project = Project(tmp_path, reproduced.shim)
    for kept in ("stages", "examples", "pictures", "params.yaml", "body.safetensors"):
        (tmp_path / kept).symlink_to(reproduced.folder / kept)
    for dep in data:
        (tmp_path / dep).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / dep).symlink_to(reproduced.folder / dep)
    project.run("python", "-m", f"stages.{name}")
    for dep in data:
        (tmp_path / dep).unlink()
        done = project.run("python", "-m", f"stages.{name}", check=False)
        assert done.returncode == 1, f"{name} does not read {dep}"
        assert re.fullmatch(rf"{name}: no data/\S+, which another stage makes: .*\n", done.stderr), done.stderr
        (tmp_path / dep).symlink_to(reproduced.folder / dep)
