"""The coordinator's side of a stage that runs on a worker. The worker's side is flows/worker.py."""

import threading
import time
from collections.abc import Callable
from typing import Any

from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, WorkerStatus
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelling, Crashed, Pending

from flows.errors import FailedError, PipelineError, StoppedError
from flows.pipeline.lock_file import Entries
from flows.processes.stage import Outcome
from flows.sharing import stage_result

POLL_SECONDS, REMIND_SECONDS = 1, 30
WORKER_TIMEOUT_SECONDS, SERVER_TIMEOUT_SECONDS = 45, 600


def run_on_worker(
    pool: str, parameters: dict[str, Any], log: Callable[[str], None], stop: threading.Event
) -> tuple[Outcome, Entries]:
    """Runs a stage on a worker of `pool`. Returns its outcome and its dvc.lock entry.

    Args:
        parameters: the parameters of `stage_on_worker` in flows/worker.py.

    Raises:
        FailedError: the stage failed on the worker, or the worker died.
        StoppedError: `stop` was set; the worker has been told to stop.
        PipelineError: there is no deployment for this pool.
    """
    try:
        name = parameters["stage"]
        run: Any = run_deployment(f"stage/{pool}", parameters=parameters, timeout=0, flow_run_name=name)
    except ObjectNotFound as error:
        raise PipelineError(
            f"no deployment stage/{pool}: run `prefect deploy --all` (docs/prefect.md: On several workers)"
        ) from error
    with get_client(sync_client=True) as client:
        state = wait_for_end(client, run, pool, log, stop)
        result = stage_result.read(client, run)
    if not state.is_completed() or "entries" not in result:
        raise FailedError(f"on {result.get('worker', f'a worker of pool {pool}')}: {state.name}: {state.message}")
    return stage_result.outcome_from(result), result["entries"]


def wait_for_end(
    client: SyncPrefectClient, run: FlowRun, pool: str, log: Callable[[str], None], stop: threading.Event
) -> Any:
    """Waits for the end of a flow run and returns its state. A flow run without heartbeats is set to Crashed.

    Raises StoppedError if `stop` is set, FailedError if the server does not answer for SERVER_TIMEOUT_SECONDS.
    """
    beat, beat_time, log_time, is_server_silent = -1, time.monotonic(), time.monotonic(), False
    while True:
        try:
            state = client.read_flow_run(run.id).state or Pending()
            new_beat = int(stage_result.read(client, run).get("beat", 0))
        except HTTPError as error:  # the worker continues; the server may come back
            if time.monotonic() - beat_time > SERVER_TIMEOUT_SECONDS:
                raise FailedError(
                    f"the Prefect server has not answered for {SERVER_TIMEOUT_SECONDS} s: {error}"
                ) from error
            if stop.wait(POLL_SECONDS):
                raise StoppedError("stopped; the worker could not be told to stop") from error
            is_server_silent = True
            continue
        if state.is_final():
            return state
        now = time.monotonic()
        if is_server_silent:  # meanwhile no heartbeat could arrive
            beat_time, is_server_silent = now, False
        if state.is_scheduled():
            beat_time = now
            if now - log_time > REMIND_SECONDS or beat == -1:
                log_time, beat = now, 0
                log(f"waiting for a worker of pool {pool}{'' if is_online(client, pool) else ': none is online'}")
        elif new_beat != beat:
            beat, beat_time = new_beat, now
        elif now - beat_time > WORKER_TIMEOUT_SECONDS:
            message = f"its worker has not been heard of for {WORKER_TIMEOUT_SECONDS} s"
            crashed: State[Any] = Crashed(message=message)
            client.set_flow_run_state(run.id, crashed, force=True)
            return crashed
        if stop.wait(POLL_SECONDS):
            client.set_flow_run_state(run.id, Cancelling())
            raise StoppedError(f"told the worker of pool {pool} to stop")


def is_online(client: SyncPrefectClient, pool: str) -> bool:
    """Returns True if the pool has a worker that is online."""
    return any(worker.status == WorkerStatus.ONLINE for worker in client.read_workers_for_work_pool(pool))
