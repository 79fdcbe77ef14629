"""Without the stand-in for `python`: the Makefile, the README and DVC's own commands, as a user runs them."""

import re
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from stages.show import rises
from tests.conftest import ROOT, Project, make_project

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose stages have all run in processes of their own."""
    project = make_project(tmp_path_factory.mktemp("started"), shim=None)
    project.repro("evaluate", "lr_find")
    return project


def test_the_forked_stages_of_the_other_tests_make_the_same_bytes(started: Project, reproduced: Project) -> None:
    assert started.md5s() == reproduced.md5s()


def test_show_prints_steps_and_places(started: Project) -> None:
    said = started.run("python", "-m", "stages.show").stdout
    for words in (
        "head",
        "augment",
        "full 32 px",
        "full 40 px",
        "TTA",
        "data/evaluate/metrics.json",
        "Where the time went",
    ):
        assert words in said


def test_show_says_which_steps_did_harm() -> None:
    steps = pd.DataFrame({"step": ["head", "augment", "full 64 px", "TTA"], "log_loss": [0.33, 0.3688, 0.29, 0.29]})
    assert rises(steps) == ["augment (+0.0388)"]
    aside = pd.DataFrame({"step": ["head's TTA"], "log_loss": [0.28]})  # nothing goes on from it
    assert rises(pd.concat([steps[:2], aside, steps[2:]], ignore_index=True)) == ["augment (+0.0388)"]


def test_metrics_and_plots_show(started: Project) -> None:
    said = started.run("dvc", "metrics", "show").stdout
    assert "log_loss_tta" in said
    started.run("dvc", "plots", "show")
    page = (started.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    for title in ("Confusion on valid", "Losses, head", "Loss on valid, all layers", "curve.png"):
        assert title in page


def test_an_experiment_changes_one_param_and_runs_what_follows(started: Project) -> None:
    started.run("git", "add", "-A")
    started.run("git", "commit", "-qm", "all run")
    said = started.run("dvc", "exp", "run", "-S", "train_full.n_cycles=2", "evaluate").stdout
    ran = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    assert ran == ["train_full", "tta", "evaluate"]
    assert "train_full.n_cycles" in started.run("dvc", "exp", "show", "--only-changed", "--csv").stdout


def test_every_command_of_the_readme_is_known() -> None:
    """Those that take minutes or the internet are run by hand before a release; their names are checked here."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    commands = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    tested = {
        "make demo", "source .venv/bin/activate", "dvc repro", "dvc metrics show", "dvc plots show",
        "make app", "dvc repro export", "make test-browser",
        "make bench", "python bench/gpu.py", "dvc exp run -S train_full.n_cycles=2",
        "python -m stages.predict data/export pictures/ --out predictions.csv",
        "python -m stages.predict data/export pictures/ --tta 4 --submission submission.csv",
        "python -m stages.show",
        "dvc exp run -S train_full.bn_freeze=true -S 'train_full.lrs=[0.000001,0.00001,0.0001]' "
        "-S train_full.size_px=256 -S train_full.batch_size=16 -S train_full.cycle_len=3 "
        "-S train_full.label_smoothing=0 -S unfreeze.size_px=256 -S unfreeze.lr_factor=10 "
        "-S transforms.max_zoom=1.1 -S transforms.max_rotate_deg=10",
        "dvc repro data/dvc.yaml:dog_breeds",
        "python -m flows.plan", "prefect server start", "python -m flows.run", "python -m flows.run --pull",
        "python -m flows.run --push", "export PREFECT_WORKER_QUERY_SECONDS=2",
        "prefect deployment schedule ls recipe/main",
        "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api", "python -m flows.run --send gpu",
        "python -m flows.run -S train_full.n_cycles=2", "dvc remote add -d team /mnt/team/unfreeze",
        'git commit -m "A remote for the team" .dvc/config', "git push", "prefect deploy --all",
        "prefect work-pool create cpu --type process", "prefect work-pool create gpu --type process",
        "UNFREEZE_CLONE=$PWD prefect worker start --pool cpu", "prefect deployment run recipe/main",
        "UNFREEZE_CLONE=$PWD prefect worker start --pool gpu --limit 1",
        "prefect deployment run recipe/main --param 'set_param=[\"train_full.n_cycles=2\"]'",
        "prefect event emit unfreeze.data-changed --resource-id unfreeze.data",
        "dvc exp run --queue -S train_full.n_cycles=2", "dvc queue start", "dvc metrics diff HEAD NAME",
        "dvc exp show --only-changed --drop '.*(py|shards|csv|parquet|safetensors|suggestion.*)'",
        "dvc plots diff HEAD NAME",
        "python -m flows.live", "python -m flows.compare", "python -m flows.compare main NAME OTHER",
        "dvc repro folds/dvc.yaml:summary",
        "dvc metrics show data/folds/summary.json", "dvc repro backbones/dvc.yaml:summary",
    }  # fmt: skip
    assert set(commands) <= tested


@pytest.mark.parametrize(
    "target", ["help", "setup", "demo", "test", "test-slow", "test-browser", "app", "bench", "lint", "clean"]
)
def test_every_target_has_a_line_of_help(target: str) -> None:
    said = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True).stdout
    assert re.search(rf"^{target} +\w", said, re.MULTILINE)


def test_the_repository_keeps_its_rules() -> None:
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    ).stdout.split()
    assert "uv.lock" not in tracked
    for name in tracked:
        if name.endswith(".py"):
            text = Path(ROOT / name).read_text(encoding="utf-8")
            loads = re.findall(r"torch\.load\((?!.*weights_only=True)", text)
            assert not loads or name.startswith("tests/"), f"{name}: torch.load without weights_only=True"
