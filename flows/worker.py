"""The flow behind the deployments stage/cpu and stage/gpu: a worker brings one stage up to date.

In its clone the worker checks out the coordinator's commit, writes the coordinator's params.yaml, and adds the dvc.lock
entries of the upstream stages. It pulls the stage's inputs and any run-cache entry of the stage, runs the stage, and
pushes the outputs. The stage's new dvc.lock entry goes back in a Prefect artifact.
"""

import threading
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Cancelled, Completed, Failed

from flows.errors import FailedError, PipelineError, StoppedError
from flows.pipeline import lock_file
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import read_graph
from flows.pipeline.lock_file import Entries
from flows.processes.cancel import watch_for_cancel
from flows.processes.gpus import gpu_slot
from flows.processes.locks import lock_clone_for_stage
from flows.processes.stage import StageStatus, run_stage
from flows.sharing import clone, stage_result
from flows.sharing.transfer_task import transfer


@flow(name="stage", flow_run_name="{stage}", persist_result=False)
def stage_on_worker(
    stage: str,
    revision: str,
    params: str | None = None,
    entries: dict[str, Any] | None = None,
    force: bool = False,
) -> Any:
    """Bring one stage up to date in this worker's clone.

    Args:
        stage: the stage's name; for a stage that is not in the top dvc.yaml, its DVC address, such as
            `pipelines/folds/dvc.yaml:split@0`.
        revision: a commit, or a branch or tag on origin.
        params: the text of params.yaml, if it differs from the text in the commit.
        entries: the dvc.lock entries of the stage and of its upstream stages: for each dvc.lock file (by its path) the
            entries by stage name.
        force: run the stage even if its result is cached.
    """
    log, stop = get_run_logger().info, threading.Event()
    try:
        with stage_result.published_result() as result, watch_for_cancel(stop), lock_clone_for_stage(stop):
            return update(stage, revision, params, entries or {}, force, log, stop, result)
    except (PipelineError, FailedError, DvcException) as error:
        return Failed(message=str(error))
    except StoppedError as error:
        return Cancelled(message=str(error))


def update(
    stage: str, revision: str, params: str | None, entries: Entries, force: bool, log: Any,
    stop: threading.Event, result: dict[str, Any],
) -> State[None]:  # fmt: skip
    commit = clone.check_out(revision, lock_file.outputs(open_repo(wait_for_lock=True)))
    log(f"checked out {commit} in {Path.cwd()}")
    if params is not None:
        Path("params.yaml").write_text(params, encoding="utf-8")
    repo = open_repo(wait_for_lock=True)
    lock_file.merge(repo, entries)
    node = read_graph(repo, [stage])[stage]
    transfer("pull", [stage], log, stop)
    with gpu_slot(node.pool, node.gpus, stop, log) as environment:
        outcome = run_stage(stage, force, log, stop, environment)
    transfer("push", [stage], log, stop)
    stage_result.record(result, outcome, lock_file.entries_of(lock_file.read(repo), [stage]))
    state = "Completed" if outcome.status is StageStatus.EXECUTED else "Cached"
    return Completed(name=state, message=str(outcome.status))
