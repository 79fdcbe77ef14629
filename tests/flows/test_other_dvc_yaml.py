"""Stages of another dvc.yaml than the top one: a matrix of folds that read what the top one makes."""

import json
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.conftest import Project, copy_project, make_project, start
from tests.flows.conftest import Flows, Server
from tests.flows.team import GPU, Team, assemble
from tests.flows.test_gpus import MOCK_NVIDIA_SMI

FOLDS = "pipelines/folds/dvc.yaml"
TELL = "date +%s.%N > out/${item.k}; echo $CUDA_VISIBLE_DEVICES >> out/${item.k}; {sleep}cat base >> out/${item.k}"


def project(folder: Path, sleep: str = "") -> Project:
    """`base` of the top dvc.yaml, of which each of two folds makes a file, and `summary` one of both."""
    copy_project(folder)
    for path in folder.rglob("dvc.yaml"):  # the recipe's own
        path.unlink()
    (folder / "params.yaml").write_text(json.dumps({"x": 1, "y": 1}), encoding="utf-8")
    top = {"base": {"cmd": "cp params.yaml base", "params": ["x"], "outs": ["base"]}}
    folds = {
        "fold": {
            "wdir": "../..",
            "matrix": {"k": [0, 1]},
            "cmd": f"mkdir -p out; {TELL.replace('{sleep}', sleep)}",
            "meta": {"pool": "gpu"},
            "params": ["y"],
            "deps": ["base"],
            "outs": ["out/${item.k}"],
        },
        "summary": {"wdir": "../..", "cmd": "cat out/0 out/1 > all", "deps": ["out/0", "out/1"], "outs": ["all"]},
    }
    (folder / FOLDS).parent.mkdir(parents=True, exist_ok=True)
    YAML().dump({"stages": top}, folder / "dvc.yaml")
    YAML().dump({"stages": folds}, folder / FOLDS)
    return start(Project(folder, shim=None))


def entries(folder: Path, lock: str) -> list[str]:
    return list(YAML(typ="safe").load((folder / lock).read_text(encoding="utf-8"))["stages"])


@pytest.mark.parametrize(
    ("target", "stages"),
    [
        ([], ["base"]),
        ([FOLDS], ["base", "fold@0", "fold@1", "summary"]),
        ([f"./{FOLDS}"], ["base", "fold@0", "fold@1", "summary"]),
        ([f"{FOLDS}:summary"], ["base", "fold@0", "fold@1", "summary"]),
        ([f"{FOLDS}:fold"], ["base", "fold@0", "fold@1"]),
        ([f"{FOLDS}:fold@1"], ["base", "fold@1"]),
        (["base", f"{FOLDS}:fold@0"], ["base", "fold@0"]),
    ],
)
def test_targets(tmp_path: Path, target: list[str], stages: list[str]) -> None:
    plan = project(tmp_path).run(sys.executable, "-m", "flows.plan", "--json", *target).stdout
    assert [one["stage"].removeprefix(f"{FOLDS}:") for one in json.loads(plan)] == stages


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (f"{FOLDS}:flod", f"no stage flod in {FOLDS}; there are {FOLDS}:fold@0, {FOLDS}:fold@1, {FOLDS}:summary"),
        ("folds/dvc.yaml", f"no stages in folds/dvc.yaml; the files with stages are dvc.yaml, {FOLDS}"),
        ("flod", "no stage flod in dvc.yaml; there are base"),
    ],
)
def test_a_target_that_is_none(tmp_path: Path, target: str, message: str) -> None:
    done = project(tmp_path).run(sys.executable, "-m", "flows.plan", target, check=False)
    assert done.stderr == f"plan: {message}\n"


@pytest.mark.slow
def test_each_lock_is_that_of_dvc_repro(server: Server, tmp_path: Path) -> None:
    flows = Flows(project(tmp_path), server)
    assert "4 executed" in flows.run(targets=[FOLDS])
    assert entries(tmp_path, "dvc.lock") == ["base"]
    assert entries(tmp_path, "pipelines/folds/dvc.lock") == ["fold@0", "fold@1", "summary"]
    assert flows.project.repro(f"{FOLDS}:summary") == []
    assert "4 unchanged" in flows.run(targets=[f"{FOLDS}:summary"])
    assert "1 unchanged, 3 executed" in flows.run("-S", "y=2", targets=[FOLDS])
    assert flows.did("Completed") == [f"{FOLDS}:fold@0", f"{FOLDS}:fold@1", f"{FOLDS}:summary"]
    assert "1 unchanged, 3 restored" in flows.run("-S", "y=1", targets=[FOLDS])
    lock = tmp_path / "pipelines/folds/dvc.lock"
    lock.write_text(lock.read_text(encoding="utf-8").rpartition("    outs:")[0] + "    ou", encoding="utf-8")
    assert "pipelines/folds/dvc.lock was cut off: 2 complete entries were kept" in flows.run(targets=[FOLDS])
    assert entries(tmp_path, "pipelines/folds/dvc.lock") == ["fold@0", "fold@1", "summary"]


def mock_two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock: a script says that there are two. Without any, a machine runs one stage of the pool gpu at a time."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvidia-smi").write_text(MOCK_NVIDIA_SMI.format(tmp_path.name), encoding="utf-8")
    (tmp_path / "bin/nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")


@pytest.mark.slow
def test_two_workers_share_the_folds(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both at the same time, each on a GPU of its own."""
    mock_two_gpus(tmp_path, monkeypatch)
    start = project(tmp_path / "start", sleep="sleep 15; ")
    with assemble(tmp_path, server, None, str(tmp_path / "remote"), project=start) as team:
        team.work("gpu", "second")
        sender = team.clone("sender")
        said = sender.run(*team.flows_run, "--send", "gpu", FOLDS).stdout
        assert "4 executed" in said
        rows = [[cell.strip() for cell in line.split("│")] for line in said.splitlines() if line.startswith("│")]
        workers = {row[5].rpartition(":")[2] for row in rows if "fold@" in row[1]}
        assert workers == {"gpu", "second"}
        began, gpus = at_the_same_time(team)
        assert abs(began[0] - began[1]) < 15
        assert gpus == {f"GPU-a{tmp_path.name}", f"GPU-b{tmp_path.name}"}
        assert entries(sender.folder, "pipelines/folds/dvc.lock") == ["fold@0", "fold@1", "summary"]
        assert entries(sender.folder, "dvc.lock") == ["base"]
        again = sender.run(*team.flows_run, "--send", "gpu", FOLDS).stdout
        assert again.splitlines()[-1] == "4 unchanged"


@pytest.mark.slow
@pytest.mark.very_slow
def test_two_workers_share_the_folds_of_the_recipe(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """pipelines/folds itself, on small pictures: two workers train different folds at once, and no stage twice."""
    mock_two_gpus(tmp_path, monkeypatch)
    recipe = make_project(tmp_path / "start", None)
    recipe.params({"split.valid_pct": 0.2})  # five folds
    with assemble(tmp_path, server, None, str(tmp_path / "remote"), project=recipe) as team:
        team.work("gpu", "second")
        sender = team.clone("sender")
        summary = f"{FOLDS}:summary"
        sender.run(*team.flows_run, "--send", "gpu", summary)
        tasks = server.tasks(server.last_run())
        stages = [name for name in tasks if not name.startswith(("pull", "push"))]
        trained = {name for name in stages if "@" in name and name.rpartition(":")[2].partition("@")[0] in GPU}
        assert len(trained) == 5 * 5
        receipts = {name: folds_receipts(team, name) for name in ("gpu", "second")}
        assert not receipts["gpu"] & receipts["second"]
        assert receipts["gpu"] | receipts["second"] == {name.rpartition(":")[2] for name in trained}
        assert overlapping_seconds(team) > 10
        again = sender.run(*team.flows_run, "--send", "gpu", summary).stdout
        assert again.splitlines()[-1] == f"{len(stages)} unchanged"
        metrics = [sender.folder / f"data/folds/{fold}/evaluate/metrics.json" for fold in range(5)]
        assert all(path.is_file() for path in metrics)


def folds_receipts(team: Team, name: str) -> set[str]:
    """Names of the folds' stages that a worker's clone has run."""
    return {path.stem for path in (team.folder / name / ".unfreeze/receipts/pipelines/folds").glob("*.json")}


def overlapping_seconds(team: Team) -> float:
    """The time in which both workers ran a stage of the folds: a stage writes its receipt at its end."""

    def spans(name: str) -> list[tuple[float, float]]:
        paths = (team.folder / name / ".unfreeze/receipts/pipelines/folds").glob("*.json")
        ends = [(path.stat().st_mtime, json.loads(path.read_text(encoding="utf-8"))["seconds"]) for path in paths]
        return [(end - seconds, end) for end, seconds in ends]

    pairs = [(a, b) for a in spans("gpu") for b in spans("second")]
    return sum(max(0.0, min(a[1], b[1]) - max(a[0], b[0])) for a, b in pairs)


def at_the_same_time(team: Team) -> tuple[list[float], set[str]]:
    """(when each fold began, the GPUs that they had)."""
    files = [path.read_text(encoding="utf-8").splitlines() for path in team.folder.glob("*/out/?")]
    began = sorted({float(lines[0]) for lines in files})
    assert len(began) == 2
    return began, {lines[1] for lines in files}
