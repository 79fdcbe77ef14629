"""One stage on a worker: the flow behind the deployments stage/cpu and stage/gpu.

The worker's clone goes to the sender's commit, takes its params and the dvc.lock entries of the upstream stages, pulls
what the stage reads and what the run-cache has of it, runs it, pushes, and returns its dvc.lock entry in an artifact.
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
from flows.processes.locks import alone_with_stage
from flows.processes.stage import How, run_stage
from flows.sharing import stage_result
from flows.sharing.clone import go_to
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
        stage: its address: its name in dvc.yaml, or `pipelines/folds/dvc.yaml:split@0`.
        revision: a commit, or a branch or tag on origin.
        params: the text of params.yaml, where it differs from that of the commit.
        entries: entries of dvc.lock files by the path of the lock: those of the upstream stages, and the stage's own.
        force: run it, whatever is cached.
    """
    log, stop = get_run_logger().info, threading.Event()
    try:
        with stage_result.heartbeat() as result, watch_for_cancel(stop), alone_with_stage(stop):
            return update(stage, revision, params, entries or {}, force, log, stop, result)
    except (PipelineError, FailedError, DvcException) as error:
        return Failed(message=str(error))
    except StoppedError as error:
        return Cancelled(message=str(error))


def update(
    stage: str, revision: str, params: str | None, entries: Entries, force: bool, log: Any,
    stop: threading.Event, result: dict[str, Any],
) -> State[None]:  # fmt: skip
    log(f"{Path.cwd()} goes to {go_to(revision, lock_file.outputs(open_repo(wait_for_lock=True)))}")
    if params is not None:
        Path("params.yaml").write_text(params, encoding="utf-8")
    repo = open_repo(wait_for_lock=True)
    lock_file.merge(repo, entries)
    node = read_graph(repo, [stage])[stage]
    transfer("pull", [stage], log, stop)
    with gpu_slot(node.pool, node.gpus, stop, log) as settings:
        outcome = run_stage(stage, force, log, stop, settings)
    transfer("push", [stage], log, stop)
    stage_result.enter(result, outcome, lock_file.entries_of(lock_file.read(repo), [stage]))
    return Completed(name="Completed" if outcome.how is How.EXECUTED else "Cached", message=str(outcome.how))
