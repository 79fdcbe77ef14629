"""A stage on another machine: the coordinator's side of flows/worker.py."""

import threading
import time
from collections.abc import Callable
from typing import Any

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed, Pending

from flows.pipeline.graph import PipelineError
from flows.processes.process import FailedError, StoppedError
from flows.processes.stage import Outcome
from flows.worker import RESULT, outcome_of

POLL_SECONDS, LOST_SECONDS, REMIND_SECONDS = 1, 45, 30
GONE_SECONDS = 600  # of a server that does not answer


def run_elsewhere(
    pool: str, parameters: dict[str, Any], log: Callable[[str], None], stop: threading.Event
) -> tuple[Outcome, dict[str, Any]]:
    """Run a stage on a worker of `pool`; its outcome and its entry of dvc.lock.

    Raises:
        FailedError: the stage failed there, or its worker was lost.
        StoppedError: `stop` was set; the worker has been told.
        PipelineError: there is no such deployment.
    """
    try:
        run: Any = run_deployment(f"stage/{pool}", parameters=parameters, timeout=0)
    except ObjectNotFound as error:
        raise PipelineError(
            f"no deployment stage/{pool}: run `prefect deploy --all` (README: On several workers)"
        ) from error
    with get_client(sync_client=True) as client:
        state = follow(client, run, pool, log, stop)
        result = read_result(client, run)
    if not state.is_completed() or "entry" not in result:
        raise FailedError(f"on {result.get('worker', f'a worker of pool {pool}')}: {state.name}: {state.message}")
    return outcome_of(result), result["entry"]


def follow(
    client: SyncPrefectClient, run: FlowRun, pool: str, log: Callable[[str], None], stop: threading.Event
) -> Any:
    """Wait for the end of a flow run; its last state. A run that no longer beats is declared crashed."""
    beat, heard, reminded, away = -1, time.monotonic(), time.monotonic(), False
    while True:
        try:
            state = client.read_flow_run(run.id).state or Pending()
            said = int(read_result(client, run).get("beat", 0))
        except HTTPError as error:  # the stage goes on there; the server may come back
            if time.monotonic() - heard > GONE_SECONDS:
                raise FailedError(f"the Prefect server has not answered for {GONE_SECONDS} s: {error}") from error
            if stop.wait(POLL_SECONDS):
                raise StoppedError("stopped; the worker could not be told") from error
            away = True
            continue
        if state.is_final():
            return state
        now = time.monotonic()
        if away:  # nor could the worker be heard
            heard, away = now, False
        if state.is_scheduled():
            heard = now
            if now - reminded > REMIND_SECONDS or beat == -1:
                reminded, beat = now, 0
                log(f"waiting for a worker of pool {pool}{'' if awake(client, pool) else ': none is online'}")
        elif said != beat:
            beat, heard = said, now
        elif now - heard > LOST_SECONDS:
            message = f"its worker has not been heard of for {LOST_SECONDS} s"
            crashed: State[Any] = Crashed(message=message)
            client.set_flow_run_state(run.id, crashed, force=True)
            return crashed
        if stop.wait(POLL_SECONDS):
            client.set_flow_run_state(run.id, Cancelling())
            raise StoppedError(f"told the worker of pool {pool} to stop")


def awake(client: SyncPrefectClient, pool: str) -> bool:
    return any(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))


def read_result(client: SyncPrefectClient, run: FlowRun) -> dict[str, Any]:
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[RESULT]))
    found = client.read_artifacts(artifact_filter=wanted)
    return dict(found[0].data) if found and isinstance(found[0].data, dict) else {}
