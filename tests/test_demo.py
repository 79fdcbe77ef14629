"""Without the stand-in for `python`: the Makefile, the README and DVC's own commands, as a user runs them."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import dropwhile, pairwise
from pathlib import Path

import pandas as pd
import pytest
from cyclopts import CycloptsError
from dvc.cli import DvcParserError
from dvc.cli.parser import get_main_parser
from prefect.cli._app import _app as prefect_cli
from ruamel.yaml import YAML

from stages.show import loss_increases
from tests.conftest import ROOT, Project, make_project

DEPLOYMENTS = YAML(typ="safe").load(ROOT / "prefect.yaml")["deployments"]


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
        "Run time of each stage",
    ):
        assert words in said


def test_show_says_which_steps_did_harm() -> None:
    steps = pd.DataFrame({"step": ["head", "augment", "full 64 px", "TTA"], "log_loss": [0.33, 0.3688, 0.29, 0.29]})
    assert loss_increases(steps) == ["augment (+0.0388)"]
    aside = pd.DataFrame({"step": ["head's TTA"], "log_loss": [0.28]})  # nothing goes on from it
    assert loss_increases(pd.concat([steps[:2], aside, steps[2:]], ignore_index=True)) == ["augment (+0.0388)"]


def test_metrics_and_plots_show(started: Project) -> None:
    said = started.run("dvc", "metrics", "show").stdout
    assert "log_loss_tta" in said
    started.run("dvc", "plots", "show")
    page = (started.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    for title in ("Confusion on valid", "Losses, head", "Loss on valid, all layers", "curve.png"):
        assert title in page


@pytest.mark.slow
def test_an_experiment_changes_one_param_and_runs_what_follows(started: Project) -> None:
    started.run("git", "add", "-A")
    started.run("git", "commit", "-qm", "all run")
    said = started.run("dvc", "exp", "run", "-S", "train_full.n_cycles=2", "evaluate").stdout
    ran = [line.split("'")[1] for line in said.splitlines() if line.startswith("Running stage")]
    assert ran == ["train_full", "tta", "evaluate"]
    assert "train_full.n_cycles" in started.run("dvc", "exp", "show", "--only-changed", "--csv").stdout


def commands() -> Iterator[list[str]]:
    """Of README.md and docs/, as the shell takes them apart, without settings before them and comments."""
    for page in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))):
        for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = list(dropwhile(re.compile(r"\w+=").match, shlex.split(line, comments=True)))
                if words:
                    yield words


def mistake(words: list[str]) -> str:
    """Why a command cannot work; empty if nothing speaks against it. Nothing is run."""
    program, *arguments = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return "" if {word for word in arguments if "=" not in word} <= set(targets) else "no such target"
    if program == "python":
        return mistake_of_ours(arguments)
    if program == "dvc":
        return mistake_of_dvc(arguments)
    if program == "prefect":
        return mistake_of_prefect(arguments)
    return "" if program in ("git", "export", "source", "cd") else f"what is {program}?"


def mistake_of_ours(arguments: list[str]) -> str:
    is_module = arguments[0] == "-m"
    name, *rest = arguments[1:] if is_module else arguments
    folder = ROOT / name.replace(".", "/")
    files = [folder.with_suffix(".py"), folder / "__main__.py"] if is_module else [ROOT / name]
    code = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    if name.startswith("stages.") and code:
        code += (ROOT / "stages/runtime/arguments.py").read_text(encoding="utf-8")  # of all stages
        rest = [word for arg in rest for word in (["-S", arg] if re.match(r"[\w.]+=", arg) else [arg])]
    unknown = [word for word in rest if re.fullmatch(r"--?[a-zA-Z][\w-]+", word) and f'"{word}"' not in code]
    return mistake_of_params(rest) or (f"no {name}" if not code else f"no {unknown}" if unknown else "")


def mistake_of_dvc(arguments: list[str]) -> str:
    try:
        given = get_main_parser().parse_args(arguments)
    except DvcParserError:
        return "not as DVC parses it"
    for path, _, stage in (target.rpartition(":") for target in getattr(given, "targets", None) or []):
        if arguments[0] in ("repro", "exp") and stage not in YAML().load(ROOT / (path or "dvc.yaml"))["stages"]:
            return f"no stage {stage}"
    return mistake_of_params(arguments)


def mistake_of_params(arguments: list[str]) -> str:
    for option, setting in pairwise(arguments):
        if option in ("-S", "--set-param"):
            value = YAML(typ="safe").load(ROOT / "params.yaml")
            for key in setting.partition("=")[0].split("."):
                if key not in value:
                    return f"no param {setting}"
                value = value[key]
    return ""


def mistake_of_prefect(arguments: list[str]) -> str:
    try:
        _, given, _ = prefect_cli.parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        return str(error)
    known = [
        f"{file.rpartition(':')[2].replace('_', '-')}/{one['name']}"
        for one in DEPLOYMENTS
        for file in [one["entrypoint"]]
    ]
    named = {value for name, value in given.arguments.items() if name in ("name", "deployment_name")}
    return "" if arguments[0] != "deployment" or named <= set(known) else f"no deployment {named}"


def test_every_command_of_the_readme_would_be_understood() -> None:
    """Those that take minutes or the internet are run by hand before a release."""
    found = list(commands())
    assert len(found) > 5
    assert {" ".join(words): said for words in found if (said := mistake(words))} == {}


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("make dmeo", "no such target"),
        ("mkae demo", "what is mkae?"),
        ("python -m flows.plam", "no flows.plam"),
        ("python -m flows.run --psuh", "no ['--psuh']"),
        ("python -m flows.run -S train_full.cycles=2", "no param train_full.cycles=2"),
        ("python -m stages.train_head --roof data/mine", "no ['--roof']"),
        ("python -m stages.train_head --root data/mine train_head.rate=1", "no param train_head.rate=1"),
        ("python bench/cpu.py", "no bench/cpu.py"),
        ("dvc repo", "not as DVC parses it"),
        ("dvc repro --forse", "not as DVC parses it"),
        ("dvc repro exprt", "no stage exprt"),
        ("dvc repro data/dvc.yaml:dogs", "no stage dogs"),
        ("dvc exp run -S tta.aug=2", "no param tta.aug=2"),
        ("prefect worker strat", 'Unknown command "strat". Did you mean "start"? Available commands: start.'),
        ("prefect worker start --poool cpu", "Unknown option: --poool. Did you mean --pool?"),
        ("prefect deployment run recipe/mian", "no deployment {'recipe/mian'}"),
    ],
)  # fmt: skip
def test_a_command_that_is_wrong_is_found(command: str, said: str) -> None:
    assert mistake(command.split()) == said


@pytest.mark.parametrize(
    "target", ["help", "setup", "demo", "test", "test-ci", "test-slow", "test-browser", "app", "bench", "lint", "clean"]
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
