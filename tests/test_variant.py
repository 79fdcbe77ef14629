"""Variants and folds in a real project: the bytes of the main pipeline, and only the work that a change asks for."""

import hashlib
import json
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import save_file

from stages.models.networks.network import load_network
from stages.runtime.errors import StageError
from stages.runtime.graph import outs_of, touched
from stages.variant import alone_in, check_is_free
from tests.conftest import BODY, Project
from tests.test_dvc_yaml import STAGES

SUMMARY = "folds/dvc.yaml:summary"
WORK = ".unfreeze/variants/data/folds"


def two_folds(project: Project) -> None:
    path = project.folder / "folds/dvc.yaml"
    text = path.read_text().replace("[0, 1, 2, 3, 4]", "[0, 1]").replace("folds 0 1 2 3 4", "folds 0 1")
    path.write_text(re.sub(r"      - data/folds/[234]\n", "", text))


@pytest.fixture(scope="module")
def folded(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two folds have run, in one command."""
    folder = tmp_path_factory.mktemp("folded") / "project"
    shutil.copytree(reproduced.folder, folder, symlinks=True)
    project = Project(folder, reproduced.shim)
    two_folds(project)
    assert sorted(project.repro(SUMMARY)) == ["folds/dvc.yaml:fold@0", "folds/dvc.yaml:fold@1", SUMMARY]
    return project


@pytest.mark.parametrize(
    "out", [".", "data", "data/tta", "data/raw", "stages/x", ".unfreeze/variants/q", "data/evaluate/a"]
)
def test_a_variant_overwrites_nothing(out: str) -> None:
    with pytest.raises(StageError, match="is not free for a variant: name a new folder"):
        check_is_free(Path(out), STAGES)
    check_is_free(Path("data/mine/a"), STAGES)


def test_no_variant_in_a_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".unfreeze/variants/data/mine").mkdir(parents=True)
    (tmp_path / ".unfreeze/variants/data/mine/params.yaml").touch()
    check_is_free(Path("data/mine"), STAGES)
    with pytest.raises(StageError, match="data/mine/stages is not free"):
        check_is_free(Path("data/mine/stages"), STAGES)


def test_two_in_one_folder_would_mix_their_params(tmp_path: Path) -> None:
    with alone_in(tmp_path), pytest.raises(StageError, match="another run is at work in"), alone_in(tmp_path):
        pass
    with alone_in(tmp_path):
        pass


@pytest.fixture
def copied(folded: Project, tmp_path: Path) -> Project:
    shutil.copytree(folded.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", folded.shim)


def ran(project: Project, *target: str) -> list[list[str]]:
    """Of each fold the stages that ran."""
    said = project.run("dvc", "repro", *target).stdout
    assert re.findall(r"^data/folds/(\d): ran", said, re.MULTILINE) in (["0", "1"], ["1", "0"])
    return [found.split(", ") for found in re.findall(r"^data/folds/\d: ran (.*); receipts in", said, re.MULTILINE)]


def test_a_fold_is_the_main_pipeline_with_that_fold(folded: Project, project: Project) -> None:
    """`project` has run with fold 0."""
    for fold in (0, 1):
        if fold:
            project.params({"split.cv_idx": fold})
            project.repro("evaluate")
        for stage in ("split", "train_head", "augment", "unfreeze", "train_full", "tta", "evaluate"):
            for out in outs_of(STAGES[stage]):
                made = (folded.folder / WORK / str(fold) / out).read_bytes()
                assert made == (project.folder / out).read_bytes(), (fold, out)
        about = json.loads((folded.folder / f"data/folds/{fold}/variant.json").read_text())
        assert about["changed"] == {"split.cv_idx": fold}


def test_a_fold_neither_resizes_nor_precomputes(folded: Project) -> None:
    for fold in (0, 1):
        receipts = {path.stem for path in (folded.folder / WORK / str(fold) / ".unfreeze/receipts").iterdir()}
        assert receipts == {"split", "train_head", "augment", "unfreeze", "train_full", "tta", "evaluate"}
        assert (folded.folder / WORK / str(fold) / "data/precompute/shards").is_symlink()


@pytest.mark.slow
def test_what_is_asked_anew_trains_nothing(copied: Project) -> None:
    copied.params({"tta.n_aug": 3})
    assert ran(copied, SUMMARY) == [["tta", "evaluate"]] * 2
    copied.params({"split.cv_idx": 1})  # the main pipeline's own fold
    assert copied.repro(SUMMARY) == []
    (copied.folder / WORK / "1/data/tta/valid.parquet").write_bytes(b"damaged")
    assert ran(copied, "-f", "-s", "folds/dvc.yaml:fold@0", "folds/dvc.yaml:fold@1") == [["nothing"], ["tta"]]


@pytest.mark.slow
def test_other_code_trains_what_uses_it(copied: Project) -> None:
    path = copied.folder / "stages/tta.py"
    path.write_text(path.read_text() + "\n# more\n")
    assert ran(copied, SUMMARY) == [["tta"]] * 2  # the same predictions: evaluate stands


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_one_that_was_stopped_or_killed_goes_on(folded: Project, copied: Project, number: signal.Signals) -> None:
    shutil.rmtree(copied.folder / WORK / "1")
    command = ["python", "-m", "stages.variant", "data/folds/1", "split.cv_idx=1"]
    environment = copied.environment()
    with subprocess.Popen(command, cwd=copied.folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line == "running 'augment'\n":
                process.send_signal(number)
                break
        process.stdout.read()
    assert process.returncode == (75 if number == signal.SIGTERM else -9)  # the latter is the shim's
    said = copied.run(*command).stdout
    assert "'train_head' did not change" in said
    assert "running 'train_full'" in said
    for name in ("valid.parquet", "metrics.json"):
        assert (copied.folder / "data/folds/1" / name).read_bytes() == (
            folded.folder / "data/folds/1" / name
        ).read_bytes()


@pytest.mark.slow
def test_another_crop_precomputes_in_a_folder_of_its_own(project: Project) -> None:
    before = project.md5s()
    said = project.run("python", "-m", "stages.variant", "data/crops/a", "precompute.size_px=40", "tta.n_aug=1").stdout
    assert said.splitlines()[-2].startswith("data/crops/a: ran precompute, train_head, augment, unfreeze, train_full")
    project.run("dvc", "status", "-q", "evaluate", "lr_find")
    assert project.md5s() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "expected a folder below this one, then key=value, as `data/folds/0 split.cv_idx=0`"),
        ("../away split.cv_idx=1", "expected a folder below this one"),
        ("data/x split.cvidx=1", "params.yaml has no key split.cvidx: mend its spelling, or add it there"),
        ("data/x split.cv_idx=[", "has no value of YAML"),
        ("data/x lr_find.lr_end=1", "no stage before evaluate reads lr_find.lr_end"),
        ("data/x split.cv_idx=99", "leaves no valid picture"),
    ],
)
def test_what_a_user_can_mend_is_said_in_one_line(project: Project, arguments: str, said: str) -> None:
    done = project.run("python", "-m", "stages.variant", *arguments.split(), check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def declared_params(stages: list[str]) -> set[str]:
    return {param for stage in stages for param in STAGES[stage].get("params", [])}


def test_params_of_the_folds_are_those_of_their_stages(folded: Project) -> None:
    declared = YAML(typ="safe").load((folded.folder / "folds/dvc.yaml").read_text())["stages"]["fold"]
    stages = touched(STAGES, ["split.cv_idx"])
    expected = declared_params(stages) - {"train_full.bn_freeze"}  # a part of a section
    section = YAML(typ="safe").load((folded.folder / "params.yaml").read_text())["split"]
    assert set(declared["params"]) == expected - {"split"} | {f"split.{key}" for key in section} - {"split.cv_idx"}
    data = {dep for stage in stages for dep in STAGES[stage]["deps"] if dep.startswith("data/")}
    made = {out for stage in stages for out in outs_of(STAGES[stage])}
    assert set(declared["deps"]) == {"stages"} | data - made


def test_the_summary_is_of_the_folds(folded: Project) -> None:
    folder = folded.folder / "data/folds"
    summary = json.loads((folder / "summary.json").read_text())
    metrics = [json.loads((folder / fold / "metrics.json").read_text()) for fold in "01"]
    a, b = (one["log_loss_tta"] for one in metrics)
    assert summary["n_folds"] == 2
    assert summary["log_loss_tta_mean"] == pytest.approx((a + b) / 2, abs=1e-6)
    assert summary["log_loss_tta_sd"] == pytest.approx(abs(a - b) / 2**0.5, abs=1e-6)
    assert summary["log_loss_tta_pooled"] == pytest.approx((a + b) / 2, abs=1e-6)  # of 9 pictures each
    assert summary["n_pooled"] == 18
    vote = pd.read_csv(folder / "submission.csv").set_index("id")
    tests = [pd.read_parquet(folder / fold / "test.parquet").set_index("id") for fold in "01"]
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
    variant = ["python", "-m", "stages.variant"]
    said = project.run(*variant, "data/backbones/one", f"backbone.name={BODY}").stdout
    assert "ran backbone, precompute, train_head, augment, unfreeze, train_full, tta, evaluate;" in said
    assert "0 of 40 computed, the others remembered" in said  # of precompute: the main pipeline's own network
    for name in ("metrics.json", "steps.csv"):
        here, there = (project.folder / path / name for path in ("data/backbones/one", "data/evaluate"))
        assert here.read_bytes() == there.read_bytes()
    project.run(*variant, "data/backbones/two", *second_body(project.folder))
    project.run("python", "-m", "stages.backbones", "one", "two")
    table = pd.read_csv(project.folder / "data/backbones/backbones.csv").set_index("backbone")
    for name in ("one", "two"):
        metrics = json.loads((project.folder / f"data/backbones/{name}/metrics.json").read_text())
        assert table.loc[name, "log_loss_tta"] == pytest.approx(metrics["log_loss_tta"])
        assert table.loc[name, "n_valid"] == 9
        assert table.loc[name, "parameters"] == n_parameters(project, name)
    assert (project.folder / "data/backbones/backbones.png").stat().st_size > 1000


def n_parameters(project: Project, name: str) -> int:
    """Of the network that a variant trained, as torch counts them."""
    path = project.folder / f".unfreeze/variants/data/backbones/{name}/data/train_full/model.safetensors"
    return sum(one.numel() for one in load_network(path).parameters())


def test_params_of_the_backbones_are_those_of_their_stages(project: Project) -> None:
    declared = YAML(typ="safe").load((project.folder / "backbones/dvc.yaml").read_text())["stages"]["backbone"]
    stages = touched(STAGES, ["backbone.name"])
    expected = declared_params(stages) - {"train_full.bn_freeze", "precompute.batch_size", "precompute.size_px"}
    section = YAML(typ="safe").load((project.folder / "params.yaml").read_text())["backbone"]
    assert set(declared["params"]) == expected - {"backbone"} | {f"backbone.{k}" for k in section} - {"backbone.name"}
    data = {dep for stage in stages for dep in STAGES[stage]["deps"] if dep.startswith("data/")}
    assert set(declared["deps"]) == {"stages"} | data - {out for stage in stages for out in outs_of(STAGES[stage])}
