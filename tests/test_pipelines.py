"""The pipelines of folds and of backbones, in a real project: the bytes of the main pipeline, and only the work that a
change asks for."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from stages.models.networks.network import load_network
from tests.conftest import BODY, ROOT, Project
from tests.test_dvc_yaml import ALL_PARAMS, STAGES

FOLDS, BACKBONES = "pipelines/folds/dvc.yaml", "pipelines/backbones/dvc.yaml"
PER_FOLD = ["split", "train_head", "augment", "unfreeze", "train_full", "tta", "evaluate"]


def outs_of(declared: dict[str, Any]) -> list[str]:
    entries = [entry for key in ("outs", "metrics", "plots") for entry in declared.get(key, [])]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def read(pipeline: str) -> dict[str, Any]:
    stages: dict[str, Any] = YAML(typ="safe").load((ROOT / pipeline).read_text(encoding="utf-8"))["stages"]
    return stages


@pytest.mark.parametrize(
    ("pipeline", "root", "item", "param"),
    [
        (FOLDS, "data/folds", "${item.cv_idx}", "split.cv_idx"),
        (BACKBONES, "data/backbones", "${item.name}", "backbone.name"),
    ],
)
def test_each_stage_is_the_main_pipelines_with_one_param_changed(
    pipeline: str, root: str, item: str, param: str
) -> None:
    """Outputs in the run's own root, deps from there or from data/; every param but the one that the command sets."""
    declared = read(pipeline)
    own = [name for name in declared if name != "summary"]
    for name in own:
        main, stage = STAGES[name], declared[name]
        section = param.split(".")[0]
        reads = section in main.get("params", []) or param in main.get("params", [])
        here = {path: path.replace("data/", f"{root}/{item}/", 1) for path in [*main["deps"], *outs_of(main)]}
        shared = {dep.split("/")[1] for dep in main["deps"] if dep.startswith("data/")} - set(own)
        expected = [
            dep if dep.split("/")[1] in shared or not dep.startswith("data/") else here[dep] for dep in main["deps"]
        ]
        assert stage["deps"] == expected, name
        assert stage["outs"] == [here[out] for out in outs_of(main)], name
        keys = {f"{section}.{one}" for one in ALL_PARAMS[section]} - {param}
        assert set(stage.get("params", [])) == {
            one for given in main.get("params", []) for one in (keys if given == section else {given} - {param})
        }, name
        words = stage["cmd"].split()
        assert words[:5] == ["python", "-m", f"stages.{name}", "--root", f"{root}/{item}"], name
        options = dict(zip(words[5::2], words[6::2], strict=False)) if "--shared" in words else {}
        assert set(options.get("--shared", "").split(",")) - {""} == shared, name
        assert words[5 + 2 * bool(shared) :] == ([f"{param}={item}"] if reads else []), name
        assert stage["meta"] == main["meta"], name


def two_folds(project: Project) -> None:
    path = project.folder / FOLDS
    text = path.read_text(encoding="utf-8").replace("[0, 1, 2, 3, 4]", "[0, 1]").replace("folds 0 1 2 3 4", "folds 0 1")
    path.write_text(re.sub(r"      - data/folds/[234]/.*\n", "", text), encoding="utf-8")


@pytest.fixture(scope="module")
def folded(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two folds have run, in one command."""
    folder = tmp_path_factory.mktemp("folded") / "project"
    shutil.copytree(reproduced.folder, folder, symlinks=True)
    project = Project(folder, reproduced.shim)
    two_folds(project)
    assert ran(project) == {0: PER_FOLD, 1: PER_FOLD, "summary": True}
    return project


@pytest.fixture
def copied(folded: Project, tmp_path: Path) -> Project:
    shutil.copytree(folded.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", folded.shim)


def ran(project: Project, *options: str) -> dict[int | str, Any]:
    """Of each fold the stages that ran, and whether the summary did; other stages by their names."""
    found: dict[int | str, Any] = {}
    for address in project.repro(*options, f"{FOLDS}:summary"):
        stage, _, fold = address.removeprefix(f"{FOLDS}:").partition("@")
        if fold:
            found.setdefault(int(fold), []).append(stage)
        else:
            found[stage] = True
    order = {name: number for number, name in enumerate(PER_FOLD)}
    return {key: sorted(value, key=order.__getitem__) if value is not True else value for key, value in found.items()}


def test_a_fold_is_the_main_pipeline_with_that_fold(folded: Project, project: Project) -> None:
    """`project` has run with fold 0."""
    for fold in (0, 1):
        if fold:
            project.params({"split.cv_idx": fold})
            project.repro("evaluate")
        for out in (out for stage in PER_FOLD for out in outs_of(STAGES[stage])):
            made = (folded.folder / out.replace("data/", f"data/folds/{fold}/", 1)).read_bytes()
            assert made == (project.folder / out).read_bytes(), (fold, out)


def test_again_nothing_runs(folded: Project) -> None:
    assert ran(folded) == {}
    folded.run("dvc", "status", "-q", f"{FOLDS}:summary")


def test_what_is_asked_anew_trains_nothing(copied: Project) -> None:
    copied.params({"tta.n_aug": 3})
    assert ran(copied) == {0: ["tta", "evaluate"], 1: ["tta", "evaluate"], "summary": True}
    copied.params({"split.cv_idx": 1})  # the main pipeline's own fold
    assert ran(copied) == {}


@pytest.mark.slow
def test_another_seed_neither_resizes_nor_precomputes(copied: Project) -> None:
    copied.params({"seed": 7})
    assert ran(copied) == {0: PER_FOLD, 1: PER_FOLD, "summary": True}


def test_runs_of_a_matrix_have_checkpoints_of_their_own(folded: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.runtime import folders, inputs

    monkeypatch.chdir(folded.folder)
    hashes = {inputs.inputs_hash("train_full", {"device": "cpu"})}
    for fold in (0, 1):
        monkeypatch.setattr(folders, "_run", folders.Run(Path(f"data/folds/{fold}"), frozenset({"resize"})))
        hashes.add(inputs.inputs_hash("train_full", {"device": "cpu"}))
        assert folders.stage_folder("resize") == Path("data/resize")
        assert folders.stage_folder("split") == Path(f"data/folds/{fold}/split")
    assert len(hashes) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--root /elsewhere", "--root /elsewhere: it must be data or a folder below data, for example data/folds/1"),
        ("--root data/../stages", "it must be data or a folder below data"),
        ("cv_idx", "'cv_idx' is not a setting: write KEY=VALUE, for example split.cv_idx=1"),
        ("split.cvidx=1", "params.yaml has no key split.cvidx: correct its spelling, or add the key there"),
        ("split.cv_idx=[", "has no value that YAML can read"),
        ("split.cv_idx=2020-13-45", "has no value that YAML can read: month must be in 1..12"),
        ("split.cv_idx=one", "params.yaml, with split.cv_idx from the command: `split.cv_idx` is 'one'"),
        ("--root data/mine --shared precomput", "--shared precomput: there is no stage 'precomput'"),
        ("--root data/mine --shared ingest,split", "split cannot take its own outputs from data: leave it out"),
        ("--shared ingest", "--shared ingest has an effect only with --root"),
        (
            "--root data/mine",
            "no data/mine/ingest/images.parquet, which another stage makes: run that stage with the same --root first",
        ),
        ("split.cv_idx=99", "leaves no valid picture"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(project: Project, arguments: str, said: str) -> None:
    before = project.md5s()
    done = project.run("python", "-m", "stages.split", *arguments.split(), check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert project.md5s() == before


def test_the_summary_is_of_the_folds(folded: Project) -> None:
    folder = folded.folder / "data/folds"
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    metrics = [json.loads((folder / fold / "evaluate/metrics.json").read_text(encoding="utf-8")) for fold in "01"]
    a, b = (one["log_loss_tta"] for one in metrics)
    assert summary["n_folds"] == 2
    assert summary["log_loss_tta_mean"] == pytest.approx((a + b) / 2, abs=1e-6)
    assert summary["log_loss_tta_sd"] == pytest.approx(abs(a - b) / 2**0.5, abs=1e-6)
    assert summary["log_loss_tta_pooled"] == pytest.approx((a + b) / 2, abs=1e-6)  # of 9 pictures each
    assert summary["n_pooled"] == 18
    vote = pd.read_csv(folder / "submission.csv").set_index("id")
    tests = [pd.read_parquet(folder / fold / "tta/test.parquet").set_index("id") for fold in "01"]
    for label in vote:
        expected = (tests[0][f"tta:{label}"] + tests[1][f"tta:{label}"]) / 2
        pd.testing.assert_series_equal(vote[label], expected, check_names=False, check_dtype=False, atol=2e-6)


def second_body(folder: Path) -> list[str]:
    """Weights of another network of timm's for tests, and the params that take them."""
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        save_file(dict(timm.create_model("test_resnet", num_classes=0).state_dict()), folder / "second.safetensors")
    sha256 = hashlib.sha256((folder / "second.safetensors").read_bytes()).hexdigest()
    values = {"name": "test_resnet", "weights_file": "second.safetensors", "weights_sha256": sha256}
    return [f"backbone.{key}={value}" for key, value in values.items()]


@pytest.mark.slow
def test_two_backbones_side_by_side(project: Project) -> None:
    networks = {"one": [f"backbone.name={BODY}"], "two": second_body(project.folder)}
    for name, changes in networks.items():
        for stage in [one for one in read(BACKBONES) if one != "summary"]:
            command = [
                "python",
                "-m",
                f"stages.{stage}",
                "--root",
                f"data/backbones/{name}",
                "--shared",
                "ingest,split,resize",
            ]
            said = project.run(*command, *changes).stdout
            if stage == "precompute" and name == "one":  # the main pipeline's own network
                assert (
                    json.loads(
                        (project.folder / f".unfreeze/receipts/data/backbones/one/{stage}.json").read_text(
                            encoding="utf-8"
                        )
                    )["computed"]
                    == 0
                ), said
    for file in ("metrics.json", "steps.csv"):
        here, there = (project.folder / path / file for path in ("data/backbones/one/evaluate", "data/evaluate"))
        assert here.read_bytes() == there.read_bytes()
    project.run("python", "-m", "stages.backbones", "one", "two")
    table = pd.read_csv(project.folder / "data/backbones/backbones.csv").set_index("backbone")
    for name in networks:
        metrics = json.loads(
            (project.folder / f"data/backbones/{name}/evaluate/metrics.json").read_text(encoding="utf-8")
        )
        assert table.loc[name, "log_loss_tta"] == pytest.approx(metrics["log_loss_tta"])
        assert table.loc[name, "n_valid"] == 9
        network = load_network(project.folder / f"data/backbones/{name}/train_full/model.safetensors")
        assert table.loc[name, "parameters"] == sum(one.numel() for one in network.parameters())
    assert (project.folder / "data/backbones/backbones.png").stat().st_size > 1000
