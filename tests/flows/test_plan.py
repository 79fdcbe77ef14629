"""The plan says what a run would do, and why, before it does it; and it changes nothing."""

import json
import sys
from pathlib import Path

import pytest

from flows.errors import PipelineError
from flows.pipeline.path_params import check_paths
from tests.conftest import Project, draw_picture, make_project
from tests.test_cache import ALL, FROM_HEAD

TARGETS = ("evaluate", "lr_find")


def plan(project: Project, *arguments: str) -> dict[str, tuple[str, str]]:
    """Stage: (verdict, why)."""
    said = project.run(sys.executable, "-m", "flows.plan", "--json", *(arguments or TARGETS)).stdout
    return {one["stage"]: (one["verdict"], "; ".join(one["why"])) for one in json.loads(said)}


def verdicts(project: Project, *arguments: str) -> dict[str, list[str]]:
    """Verdict: stages, in the order of the plan; without those that stay."""
    found: dict[str, list[str]] = {}
    for stage, (verdict, _) in plan(project, *arguments).items():
        found.setdefault(verdict, []).append(stage)
    found.pop("unchanged", None)
    return found


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything but DVC's own notes of what it has hashed, and bytecode."""
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and ".dvc/tmp" not in str(path) and "__pycache__" not in str(path)
    }


def test_nothing_has_run(tmp_path: Path) -> None:
    found = plan(make_project(tmp_path, shim=None))
    assert [stage for stage, (verdict, _) in found.items() if verdict == "run"] == ["ingest", "backbone"]
    assert found["ingest"][1] == "not in dvc.lock: never run at this commit"
    assert found["split"] == ("depends", "depends on ingest")
    assert list(found) == ALL


def test_nothing_changed_and_nothing_is_touched(project: Project) -> None:
    before = files(project.folder)
    assert verdicts(project) == {}
    assert files(project.folder) == before


def test_a_param_and_what_lies_below(project: Project) -> None:
    project.params({"train_full.n_cycles": 2, "train_full.bn_freeze": True})
    found = plan(project)
    assert found["unfreeze"] == ("run", "param train_full.bn_freeze: False -> True")
    own = "param train_full.bn_freeze: False -> True; param train_full.n_cycles: 1 -> 2"
    assert found["train_full"] == ("depends", f"depends on unfreeze; {own}")
    assert found["tta"] == ("depends", "depends on train_full")
    assert [stage for stage, (verdict, _) in found.items() if verdict != "unchanged"] == FROM_HEAD[2:]


@pytest.mark.slow
def test_back_to_an_old_param_is_restored_and_what_lies_below_too_unless_it_has_changed(project: Project) -> None:
    project.params({"train_full.n_cycles": 2})
    assert project.repro(*TARGETS) == FROM_HEAD[3:]
    project.params({"train_full.n_cycles": 1})
    found = plan(project)
    assert [stage for stage, (verdict, _) in found.items() if verdict == "restore"] == FROM_HEAD[3:]
    assert found["train_full"][1] == "param train_full.n_cycles: 2 -> 1"
    assert found["tta"][1].startswith("dep data/train_full/model.safetensors: ")
    project.params({"tta.n_aug": 3})
    assert verdicts(project) == {"restore": ["train_full"], "run": ["tta"], "depends": ["evaluate"]}
    assert project.repro(*TARGETS) == ["tta", "evaluate"]


def test_a_picture_and_how_many_there_are(project: Project) -> None:
    draw_picture(project.folder / "pictures/train/red99.jpg", "red", 99)
    verdict, why = plan(project)["ingest"]
    assert verdict == "run"
    assert why.startswith("dep pictures: ")
    assert why.endswith("(41 -> 42 files)")


def test_code(project: Project) -> None:
    path = project.folder / "stages/training/loop/lr_finder.py"
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    below = ["augment", "unfreeze", "train_full", "tta", "evaluate"]
    assert verdicts(project) == {"run": ["lr_find", "train_head"], "depends": below}
    assert plan(project)["lr_find"][1].startswith("dep stages/training/loop: ")


def test_a_command(project: Project) -> None:
    path = project.folder / "dvc.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace("cmd: python -m stages.tta", "cmd: python  -m stages.tta"),
        encoding="utf-8",
    )
    assert plan(project)["tta"] == ("run", "the command changed")


def test_a_lost_output_is_restored_and_one_lost_in_the_cache_too_is_made_again(project: Project) -> None:
    (project.folder / "data/tta/valid.parquet").unlink()
    assert plan(project)["tta"] == ("restore", "output data/tta/valid.parquet is not here")
    md5 = project.md5s()["data/tta/valid.parquet"]
    (project.folder / f".dvc/cache/files/md5/{md5[:2]}/{md5[2:]}").unlink()
    assert verdicts(project) == {"run": ["tta"], "depends": ["evaluate"]}


def test_an_output_changed_by_hand_is_put_back(project: Project) -> None:
    path = project.folder / "data/split/valid.csv"
    content = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text(content + "\n", encoding="utf-8")
    assert verdicts(project) == {"restore": ["split"]}
    assert project.repro(*TARGETS) == []
    assert path.read_text(encoding="utf-8") == content


def test_force_and_frozen(project: Project) -> None:
    assert verdicts(project, "--force", "split") == {"run": ["ingest", "split"]}
    project.run("dvc", "freeze", "split")
    project.params({"split.cv_idx": 1})
    assert plan(project)["split"] == ("unchanged", "frozen in dvc.yaml")
    assert verdicts(project) == {}


def test_the_pools_and_what_it_took_last_time(project: Project) -> None:
    said = project.run(sys.executable, "-m", "flows.plan", "--json", *TARGETS).stdout
    found = {one["stage"]: one for one in json.loads(said)}
    assert [stage for stage, one in found.items() if one["pool"] == "gpu"] == [
        "precompute", "lr_find", "train_head", "augment", "unfreeze", "train_full", "tta",
    ]  # fmt: skip
    receipt = json.loads((project.folder / ".unfreeze/receipts/tta.json").read_text(encoding="utf-8"))
    assert found["tta"]["seconds"] == receipt["seconds"]


def test_the_table(project: Project) -> None:
    project.params({"tta.n_aug": 3})
    said = project.run(sys.executable, "-m", "flows.plan", *TARGETS).stdout
    assert "param tta.n_aug: 2 -> 3" in said
    assert "depends on tta" in said


def test_a_stage_that_is_not_there(project: Project) -> None:
    done = project.run(sys.executable, "-m", "flows.plan", "tain_head", check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("plan: no stage tain_head in dvc.yaml; there are ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (
            "2024",
            "`a.path` is 2024, which YAML reads as int: the stage one needs a path there: write",
        ),
        ("1.5", "`a.path` is 1.5, which YAML reads as float"),
        ("true", "`a.path` is True, which YAML reads as bool"),
        ("2024-01-31", "`a.path` is 2024-01-31, which YAML reads as date"),
        ("[a]", "`a.path` is ['a'], which YAML reads as list"),
        ("", "`a.path` is empty: the stage one needs a path"),
        ("''", "`a.path` is empty"),
        ("'2024'", None),
        ("no", None),
    ],
)
@pytest.mark.parametrize("kind", ["deps: [x, '${a.path}']", "outs: [{'${a.path}${nothing}': {cache: false}}]"])
def test_a_param_that_is_no_path(tmp_path: Path, value: str, line: str | None, kind: str) -> None:
    (tmp_path / "params.yaml").write_text(f"a:\n  path: {value}\nn: 3\n", encoding="utf-8")
    stages = f"stages:\n  other:\n    cmd: x\n    deps: ['${{n}}/x', '${{far}}', '${{a.n}}']\n  one:\n    {kind}\n"
    (tmp_path / "dvc.yaml").write_text(stages, encoding="utf-8")
    if line is None:
        check_paths(tmp_path)
    else:
        with pytest.raises(PipelineError) as error:
            check_paths(tmp_path)
        assert str(error.value).startswith(f"params.yaml: {line}")


def test_a_pipeline_that_cannot_be_read_is_left_to_dvc(tmp_path: Path) -> None:
    check_paths(tmp_path)
    for pipeline in ("", "- a", "stages: 3", "stages: {a: 3, b: {deps: 4}, c: {deps: [5]}}", "a: ["):
        (tmp_path / "dvc.yaml").write_text(pipeline, encoding="utf-8")
        (tmp_path / "params.yaml").write_text("3", encoding="utf-8")
        check_paths(tmp_path)


def test_a_number_for_a_path_reaches_the_stage_which_says_what_to_mend(tmp_path: Path) -> None:
    """DVC alone; without `nothing` in dvc.yaml it ends with "'int' object has no attribute 'decode'"."""
    project = make_project(tmp_path, shim=None)
    project.params({"ingest.path": 2024})
    for command in ("flows.plan", "flows.run"):
        said = project.run(sys.executable, "-m", command, check=False).stderr
        assert said.startswith(f"{command.removeprefix('flows.')}: params.yaml: `ingest.path` is 2024, which YAML")
        assert len(said.splitlines()) == 1
    done = project.run("dvc", "repro", "ingest", check=False)
    assert f"[Errno 2] No such file or directory: '{project.folder}/2024'" in done.stderr
    (project.folder / "pictures").rename(project.folder / "2024")
    done = project.run("dvc", "repro", "ingest", check=False)
    assert "ingest: params.yaml: `ingest.path` is 2024: Input should be a valid string\n" in done.stderr
    project.params({"ingest.path": None})
    assert f"directory: '{project.folder}/None'" in project.run("dvc", "repro", "ingest", check=False).stderr


def test_no_repository(tmp_path: Path, project: Project) -> None:
    command = ("env", f"PYTHONPATH={project.folder}", sys.executable, "-m", "flows.plan")
    done = Project(tmp_path, None).run(*command, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
