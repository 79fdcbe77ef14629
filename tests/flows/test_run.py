"""The flow on one machine: real Prefect, real DVC, real git. Its states tell the truth."""

import json
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.states import Cancelling
from ruamel.yaml import YAML

from tests.conftest import Project, make_project
from tests.flows.conftest import Flows, Server
from tests.test_cache import ALL


def replace_command(project: Project, stage: str, command: str) -> None:
    path = project.folder / "dvc.yaml"
    path.write_text(
        path.read_text(encoding="utf-8").replace(f"cmd: python -m stages.{stage}\n", f"cmd: {command}\n"),
        encoding="utf-8",
    )


def test_a_fresh_clone_executes_all_and_then_nothing(
    tmp_path: Path, shim: Path, server: Server, reproduced: Project
) -> None:
    flows = Flows(make_project(tmp_path, shim), server)
    said = flows.run()
    assert flows.did("Completed") == sorted(ALL)
    assert "12 executed" in said
    lock = (tmp_path / "dvc.lock").read_bytes()
    yaml = YAML(typ="safe")  # that of plain `dvc repro`, whose order is another each time: see flows/pipeline/graph.py
    assert yaml.load(lock) == yaml.load((reproduced.folder / "dvc.lock").read_bytes())
    assert flows.project.repro("evaluate", "lr_find") == []
    assert "12 unchanged" in flows.run()
    assert flows.did("Cached") == sorted(ALL)
    assert (tmp_path / "dvc.lock").read_bytes() == lock


def test_one_param_runs_what_the_plan_named_and_the_way_back_is_restored(flows: Flows) -> None:
    said = flows.run("-S", "tta.n_aug=3")
    assert flows.did("Completed") == ["evaluate", "tta"]
    assert flows.did("Cached") == sorted(set(ALL) - {"tta", "evaluate"})
    assert "param tta.n_aug: 2 -> 3" in said
    assert "all 13" in said
    assert "2 executed" in said
    said = flows.run("-S", "tta.n_aug=2")
    assert flows.did("Completed") == []
    assert "2 restored" in said
    messages = {
        name: task.state.message for name, task in flows.server.tasks(flows.server.last_run()).items() if task.state
    }
    assert messages["tta"] == "restored: param tta.n_aug: 3 -> 2"
    assert messages["split"] == "unchanged"


def test_a_result_with_the_same_bytes_stops_the_change(flows: Flows) -> None:
    path = flows.project.folder / "stages/train_head.py"
    path.write_text(path.read_text(encoding="utf-8") + "# a comment\n", encoding="utf-8")
    flows.run()
    assert flows.did("Completed") == ["train_head"]
    assert flows.did("Cached") == sorted(set(ALL) - {"train_head"})


def test_force_executes_all_that_was_asked_for(flows: Flows) -> None:
    before = flows.project.md5s()
    flows.run("--force", targets=["split"])
    assert flows.did("Completed") == ["ingest", "split"]
    assert flows.project.md5s() == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("echo out of luck; exit 1", "out of luck"),
        pytest.param("kill -9 $$", "exited with -9", marks=pytest.mark.slow),
        pytest.param("'true'", "output 'data/tta/valid.parquet' does not exist", marks=pytest.mark.slow),
    ],
    ids=["exits 1", "is killed", "leaves an output out"],
)
def test_a_failure_stops_what_lies_below_and_the_mend_goes_on_there(flows: Flows, command: str, message: str) -> None:
    replace_command(flows.project, "tta", command)
    said = flows.run("-S", "tta.n_aug=3", code=1)
    assert flows.did("Failed") == ["tta"]
    assert flows.did("NotReady") == ["evaluate"]
    assert flows.did("Completed") == []
    assert flows.server.last_run().state_name == "Failed"
    assert message in flows.server.message("tta")
    assert "not run" in said
    flows.project.run("git", "checkout", "-q", "dvc.yaml")
    flows.run()
    assert flows.did("Completed") == ["evaluate", "tta"]
    assert flows.did("Cached") == sorted(set(ALL) - {"evaluate", "tta"})


def test_a_failure_is_not_repeated(flows: Flows) -> None:
    replace_command(flows.project, "tta", "echo once >> tries; exit 1")
    flows.run(code=1)
    assert (flows.project.folder / "tries").read_text(encoding="utf-8") == "once\n"


def test_side_branches_go_on_where_one_fails(flows: Flows) -> None:
    replace_command(flows.project, "lr_find", "exit 1")
    flows.run("-S", "tta.n_aug=3", code=1)
    assert flows.did("Failed") == ["lr_find"]
    assert flows.did("Completed") == ["evaluate", "tta"]


def children(process: subprocess.Popen[str], word: str) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.Error):  # gone in the meantime
            found += [child] if word in " ".join(child.cmdline()) else []
    return found


def locks(project: Project) -> str:
    """What DVC remembers of who reads and writes; empty when nobody does."""
    path = project.folder / ".dvc/tmp/rwlock"
    return path.read_text(encoding="utf-8").strip("{}\n ") if path.exists() else ""


def hears_ctrl_c() -> None:
    """Also where the tests were started in the background of a shell, which ignores it for all that they start."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("how", "command"), [("in Prefect", "sleep 61"), ("Ctrl-C", "trap '' TERM; sleep 61; true")], ids=["Prefect", "^C"]
)
def test_cancelling_stops_the_stage_and_leaves_no_lock(flows: Flows, how: str, command: str) -> None:
    """Also a stage that does not hear SIGTERM."""
    replace_command(flows.project, "tta", command)
    process = subprocess.Popen(
        flows.command(), cwd=flows.project.folder, env=flows.project.environment(), encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, preexec_fn=hears_ctrl_c,
    )  # fmt: skip
    while not (sleeping := children(process, "sleep 61")):
        assert process.poll() is None
        time.sleep(0.1)
    run = flows.server.last_run()
    assert "another run is at work in this clone" in flows.run(code=1)
    started = time.monotonic()
    if how == "Ctrl-C":
        psutil.Process(process.pid).send_signal(2)
    else:
        flows.server.client.set_flow_run_state(run.id, Cancelling())
    psutil.wait_procs(sleeping, timeout=30)
    assert time.monotonic() - started < 10
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 1, said
    assert not sleeping[0].is_running()
    assert locks(flows.project) == ""
    assert flows.server.client.read_flow_run(run.id).state_name == "Cancelled"
    assert flows.server.states(run)["evaluate"] in (
        "NotReady",
        "Cancelled",
    )  # the server tidies up every 20 s
    flows.project.run("git", "checkout", "-q", "dvc.yaml")
    assert flows.project.repro("evaluate") == []  # from the run-cache: its outputs were gone


def test_the_page_has_table_metrics_and_plots(flows: Flows) -> None:
    flows.run()
    run = flows.server.last_run()
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    found = {artifact.key: artifact for artifact in flows.server.client.read_artifacts(artifact_filter=wanted)}
    assert set(found) == {"stages", "metrics", "range-test-head", "range-test-all-layers", "confusion", "report"}
    assert "| tta | unchanged |" in str(found["stages"].data)
    metrics = json.loads((flows.project.folder / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    rows = json.loads(str(found["metrics"].data))
    assert {row["metric"]: row["value"] for row in rows} == metrics
    assert "data:image/png;base64," in str(found["confusion"].data)


def test_a_server_that_does_not_answer(flows: Flows) -> None:
    flows.server = Server(1, flows.server.home)
    said = flows.run(code=1)
    assert said.startswith("run: no Prefect server answers at PREFECT_API_URL = http://127.0.0.1:1/api")
    assert len(said.splitlines()) == 1


@pytest.mark.slow
def test_without_a_server_one_is_started(project: Project, tmp_path: Path) -> None:
    command = ["env", "-u", "PREFECT_API_URL", f"PREFECT_HOME={tmp_path / 'home'}", sys.executable]
    said = project.run(*command, "-m", "flows.run", "split").stdout
    assert said.startswith("No Prefect server is set: starting a temporary one")
    assert "2 unchanged" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-S", "tta.n_agu=3"], "n_agu"),
        (["-S", "tta.n_aug"], "Invalid"),
        (["tain_head"], "no stage tain_head in dvc.yaml"),
    ],
)
def test_one_clear_line(flows: Flows, arguments: list[str], message: str) -> None:
    params = (flows.project.folder / "params.yaml").read_bytes()
    said = flows.run(*arguments, code=1)
    assert message in said
    assert "Traceback" not in said
    assert (flows.project.folder / "params.yaml").read_bytes() == params


def test_flows_import_no_torch() -> None:
    program = (
        "import sys, flows.run, flows.plan, flows.recipe, flows.worker;"
        "assert not {'torch', 'timm', 'stages'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_run_is_named_by_what_it_is_for(flows: Flows) -> None:
    project = flows.project
    commit = project.run("git", "rev-parse", "--short", "HEAD").stdout.strip()
    branch = project.run("git", "branch", "--show-current").stdout.strip()
    flows.run("-S", "split.valid_pct=0.25", "-S", "tta.n_aug=2", targets=["split"])
    assert flows.server.last_run().name == f"{branch} {commit} split.valid_pct=0.25 tta.n_aug=2"
    project.run("git", "checkout", "-q", "--detach")
    (project.folder / "stages/split.py").write_text("1 / 0\n", encoding="utf-8")
    flows.run(targets=["split"], code=1)
    assert flows.server.last_run().name == f"{commit} +changes"
