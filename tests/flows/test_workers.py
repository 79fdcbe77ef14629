"""Two workers in two clones, one remote directory, one server: all real, all started here."""

import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelling

from tests.conftest import Project, draw_picture
from tests.flows.conftest import TARGETS, Server
from tests.flows.team import Team, a_team_makes_what_dvc_repro_makes, assemble, kept_promises
from tests.flows.test_run import children, locks
from tests.test_cache import ALL

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, server: Server, shim: Path) -> Iterator[Team]:
    folder = tmp_path_factory.mktemp("team")
    with assemble(folder, server, shim, str(folder / "remote")) as team:
        yield team


def test_gpu_stages_run_on_the_gpu_worker_and_a_third_clone_restores_all(team: Team, reproduced: Project) -> None:
    a_team_makes_what_dvc_repro_makes(team, (reproduced.folder / "dvc.lock").read_bytes())


def test_again_nothing_runs(team: Team) -> None:
    run = team.wait(team.recipe())
    assert run.state_name == "Completed", run.state
    assert set(team.states(run).values()) == {"Cached"}


def test_what_another_clone_has_made_is_restored_by_a_worker(team: Team) -> None:
    other = team.clone("third")
    said = other.run(*team.flows_run, "--push", "-S", "tta.n_aug=3", *TARGETS).stdout
    assert "2 executed" in said
    (team.folder / "gpu/.unfreeze/receipts/tta.json").unlink()
    run = team.wait(team.recipe(set_param=["tta.n_aug=3"]))
    assert run.state_name == "Completed", run.state
    assert set(team.states(run).values()) == {"Cached"}
    assert not (team.folder / "gpu/.unfreeze/receipts/tta.json").exists()


def test_what_the_sender_has_made_and_not_pushed_is_restored_by_a_worker(team: Team) -> None:
    other = team.clone("third")
    for n_aug in (5, 3):
        other.params({"tta.n_aug": n_aug})
        other.repro(*TARGETS)
    said = other.run(*team.flows_run, "--send", "gpu", "-S", "tta.n_aug=5", *TARGETS).stdout
    assert said.splitlines()[-1] == "10 unchanged, 2 restored"


def asleep(team: Team) -> list[psutil.Process]:
    """The stage's process on the gpu worker, once it is there."""
    for _ in range(600):
        if sleeping := children(team.workers["gpu"], "sleep 62"):
            return sleeping
        time.sleep(0.2)
    pytest.fail(
        "the gpu worker does not start the stage: " + (team.folder / "gpu.log").read_text(encoding="utf-8")[-3000:]
    )


def test_a_worker_killed_in_the_middle_loses_nothing(team: Team) -> None:
    yaml = team.folder / "start/dvc.yaml"
    start = Project(team.folder / "start", team.shim)
    command = "cmd: python -m stages.tta"
    yaml.write_text(
        yaml.read_text(encoding="utf-8").replace(command, f"cmd: test -e go || sleep 62; {command[5:]}"),
        encoding="utf-8",
    )
    start.run("git", "commit", "-qam", "a slow stage")
    start.run("git", "push", "-q", str(team.folder / "origin.git"), "main")
    run = team.recipe()
    asleep(team)
    team.stop("gpu", signal.SIGKILL)
    started = time.monotonic()
    ended = team.wait(run)
    assert time.monotonic() - started < 90
    assert ended.state_name == "Failed"
    assert "has not been heard of" in str(team.server.tasks(ended)["tta"].state)
    assert team.states(ended)["evaluate"] == "NotReady"
    (team.folder / "gpu/go").touch()
    team.work("gpu")
    ended = team.wait(team.recipe())
    assert ended.state_name == "Completed", ended.state
    states = team.states(ended)
    assert {stage for stage, state in states.items() if state == "Completed"} <= {"tta", "evaluate"}
    assert states["tta"] == "Completed"
    assert kept_promises(team.folder / "remote") > len(ALL)


def test_cancelling_reaches_the_worker(team: Team) -> None:
    (team.folder / "gpu/go").unlink(missing_ok=True)
    before = {pool: locks(team.clone(pool)) for pool in ("cpu", "gpu")}  # a killed reader's stay until somebody writes
    run = team.recipe(set_param=["tta.n_aug=5"])
    sleeping = asleep(team)
    started = time.monotonic()
    team.server.client.set_flow_run_state(run.id, Cancelling())
    psutil.wait_procs(sleeping, timeout=30)
    assert time.monotonic() - started < 10
    assert team.wait(run).state_name == "Cancelled"
    for pool in ("cpu", "gpu"):
        for _ in range(60):
            if locks(team.clone(pool)) == before[pool]:
                break
            time.sleep(0.5)
        assert locks(team.clone(pool)) == before[pool]


def recipe_after(team: Team, run: FlowRun) -> FlowRun:
    """The run of recipe that was started after `run`, once it is over."""
    for _ in range(240):
        if (found := team.server.last_run("recipe")).id != run.id:
            return team.wait(found)
        time.sleep(0.5)
    pytest.fail("no new run of recipe")


def test_new_pictures_start_the_recipe_by_poll_and_by_event(team: Team) -> None:
    start, shared = Project(team.folder / "start", team.shim), team.folder / "shared"
    shutil.copytree(start.folder / "pictures", shared)
    start.params({"ingest.path": str(shared)})
    start.run("git", "commit", "-qam", "pictures that all clones see")
    start.run("git", "push", "-q", "origin", "main")
    before = team.wait(team.recipe(revision="main"))  # the workers' clones go to the new commit
    assert before.state_name == "Completed", before.state

    poll = team.wait(team.start("new-data/poll", quiet_seconds=0))
    assert "started recipe/main" in str(poll.state)
    assert recipe_after(team, before).state_name == "Completed"
    assert team.wait(team.start("new-data/poll", quiet_seconds=0)).state_name == "Unchanged"

    draw_picture(shared / "train/red03.jpg", "red", 999)
    client = team.server.client
    deployment = client.read_deployment_by_name("new-data/poll")
    client.update_deployment(deployment.id, DeploymentUpdate(parameters={"quiet_seconds": 0}))
    event = ("prefect", "event", "emit", "unfreeze.data-changed", "--resource-id", "unfreeze.data")
    last = team.server.last_run()
    start.run(*team.server.env(*event))
    again = recipe_after(team, last)
    assert again.state_name == "Completed", again.state
    assert {"ingest", "resize", "train_full"} <= {
        name for name, state in team.states(again).items() if state == "Completed"
    }


def test_uncommitted_code_is_refused(team: Team) -> None:
    third = team.clone("third")
    (third.folder / "stages/tta.py").write_text("# changed\n", encoding="utf-8")
    done = third.run(*team.flows_run, "--send", "gpu", "-S", "tta.n_aug=9", *TARGETS, check=False)
    assert done.returncode == 1
    assert "not committed: stages/tta.py" in done.stdout
    assert "n_aug: 9" not in (third.folder / "params.yaml").read_text(encoding="utf-8")
