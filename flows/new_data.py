"""The flow behind the deployment new-data/poll: start the pipeline when the pictures have changed.

A poll starts on a schedule, or when the event `unfreeze.data-changed` arrives. When the folder of pictures has changed,
the poll waits until two checks in a row find no change: the folder has then been filled. A check compares the file
times only with those of another check, so the clock of the machine that wrote the files does not matter.

Polls that were requested while one is running wait in Prefect's queue. The running poll cancels them at its next check,
which happens after their request, so every event is followed by a check.

The same content never starts two runs: the fingerprint (names, sizes, times) says that something may have changed, and
DVC's hash of the folder says whether its content did. Two runs never work at the same time, because the deployment
recipe/main has a concurrency limit of 1, and Prefect starts only one run for an idempotency key.
"""

import hashlib
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from dvc.exceptions import DvcException
from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateName,
)
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Failed
from prefect.variables import Variable

from flows.errors import PipelineError
from flows.pipeline.data_folder import content_hash, first_dependency, folder_fingerprint

QUEUED = "AwaitingConcurrencySlot"  # Prefect's state of a run that waits for another run of the same deployment


@flow(name="new-data", persist_result=False)
def new_data(
    stage: str = "ingest", deployment: str = "recipe/main", quiet_seconds: float = 30, most_seconds: float = 6 * 3600
) -> Any:
    """Check the folder that a stage reads; start a deployment if the folder's content is new.

    Args:
        stage: the stage whose first dependency is the folder (for `ingest` the folder is `ingest.path`).
        deployment: the deployment to start.
        quiet_seconds: when nothing in the folder has changed for this time, it has been filled.
        most_seconds: the longest time to wait until the folder has been filled.
    """
    try:
        name = first_dependency(stage).def_path
        key = f"unfreeze_{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        seen: Any = Variable.get(key) or {"fingerprint": "", "content": "", "n": 0}
        fingerprint, content = wait_for_rest(stage, seen["fingerprint"], quiet_seconds, most_seconds)
        if not content:
            return Completed(name="Unchanged", message=f"{name} is as it was")
        if content == seen["content"]:
            Variable.set(key, seen | {"fingerprint": fingerprint}, overwrite=True)
            return Completed(name="Unchanged", message=f"{name} was touched, its content is as it was")
        return start(deployment, key, {"fingerprint": fingerprint, "content": content, "n": seen["n"] + 1})
    except (PipelineError, DvcException, OSError) as error:
        return Failed(message=str(error))


def wait_for_rest(stage: str, old_fingerprint: str, quiet_seconds: float, most_seconds: float) -> tuple[str, str]:
    """Returns the fingerprint and the content hash of the folder, once nothing in it has changed for `quiet_seconds`
    or while it was hashed. The content hash is empty if the fingerprint is still the old one.

    Raises:
        PipelineError: the folder is still changing after `most_seconds`.
    """
    started, folder = time.monotonic(), Path(first_dependency(stage).fs_path)
    fingerprint = check(folder)
    while fingerprint != old_fingerprint:
        time.sleep(quiet_seconds)
        previous, fingerprint = fingerprint, check(folder)
        if fingerprint == previous:
            content = content_hash(stage)
            if check(folder) == fingerprint:
                return fingerprint, content
        if time.monotonic() - started > most_seconds:
            raise PipelineError(
                f"{folder} has been changing for {most_seconds:,g} s and is not at rest: when it is, "
                "`prefect deployment run new-data/poll`"
            )
    return fingerprint, ""


def check(folder: Path) -> str:
    """Cancels the polls that wait for this one, because this check does their work; returns the fingerprint."""
    cancel_queued_polls()
    return folder_fingerprint(folder)


def start(deployment: str, key: str, seen: dict[str, Any]) -> State[None]:
    """Starts the deployment once for this change, and remembers the content in the Prefect variable `key`.

    `seen["n"]` counts the changes. It is a part of the idempotency key, so that a content that comes back after
    another one starts a run again.
    """
    idempotency_key = f"{key}-{seen['n']}-{seen['content']}"
    try:
        run: Any = run_deployment(deployment, timeout=0, as_subflow=False, idempotency_key=idempotency_key)
    except ObjectNotFound as error:
        raise PipelineError(f"no deployment {deployment}: run `prefect deploy --all`") from error
    Variable.set(key, seen, overwrite=True)
    return Completed(message=f"started {deployment}: {run.name}")


def cancel_queued_polls() -> None:
    """Cancels all runs of this deployment that wait until this run ends."""
    if not runtime.deployment.id:
        return
    own = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(str(runtime.deployment.id))]))
    queued = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=[QUEUED])))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(deployment_filter=own, flow_run_filter=queued):
            cancelled: State[Any] = Cancelled(message=f"{runtime.flow_run.name} checks the folder after this request")
            client.set_flow_run_state(run.id, cancelled)
