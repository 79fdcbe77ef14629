"""Start the recipe when the pictures change: the flow behind the deployment new-data/poll.

Polled on a schedule, or woken by the event `unfreeze.data-changed`. After a change it looks until the folder is at
rest: nothing changed between two looks; whose clock wrote the files does not matter. A poll that is asked for in the
meantime waits, and is cancelled by the next look, which is its look too; so an event is always followed by a look.
Never twice for the same content: a cheap fingerprint (names, sizes, times) says that something may have changed, DVC's
own hash of the folder whether it did.
Never two at once: the deployment recipe/main has a concurrency limit of 1, and Prefect takes an idempotency key once.
"""

import hashlib
import os
import time
from contextlib import suppress
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
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import read_graph

QUEUED = "AwaitingConcurrencySlot"  # Prefect's name for the state of a run that waits for another of its deployment


@flow(name="new-data", persist_result=False)
def new_data(
    stage: str = "ingest", deployment: str = "recipe/main", quiet_seconds: float = 30, most_seconds: float = 6 * 3600
) -> Any:
    """Look at the folder that a stage reads; start a deployment if its content is new.

    Args:
        stage: its first dep is the folder: `ingest.path`.
        deployment: what to start.
        quiet_seconds: a folder in which nothing changes for so long has been filled.
        most_seconds: how long to wait for that.
    """
    try:
        name = data_of(stage).def_path
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


def data_of(stage: str) -> Any:
    """DVC's own object for the folder, with nothing of it remembered from an earlier look."""
    return read_graph(open_repo(), [stage])[stage].dvc.deps[0]


def wait_for_rest(stage: str, known: str, quiet_seconds: float, most_seconds: float) -> tuple[str, str]:
    """(fingerprint, content) of a folder in which nothing changed for `quiet_seconds`, nor while it was hashed.

    The content is empty where the fingerprint is the known one.

    Raises:
        PipelineError: it goes on changing after `most_seconds`.
    """
    began, folder = time.monotonic(), Path(data_of(stage).fs_path)
    fingerprint = look(folder)
    while fingerprint != known:
        time.sleep(quiet_seconds)
        before, fingerprint = fingerprint, look(folder)
        if fingerprint == before:
            content = str(data_of(stage).get_hash().value)
            if look(folder) == fingerprint:
                return fingerprint, content
        if time.monotonic() - began > most_seconds:
            raise PipelineError(
                f"{folder} has been changing for {most_seconds:,g} s and is not at rest: when it is, "
                "`prefect deployment run new-data/poll`"
            )
    return fingerprint, ""


def start(deployment: str, key: str, found: dict[str, Any]) -> State[None]:
    """`n` counts the changes, so that the same content may come again after another, but one change starts one run."""
    once = f"{key}-{found['n']}-{found['content']}"
    try:
        run: Any = run_deployment(deployment, timeout=0, as_subflow=False, idempotency_key=once)
    except ObjectNotFound as error:
        raise PipelineError(f"no deployment {deployment}: run `prefect deploy --all`") from error
    Variable.set(key, found, overwrite=True)
    return Completed(message=f"started {deployment}: {run.name}")


def look(folder: Path) -> str:
    """Hash of names, sizes and times of everything below a folder. Polls that wait for this one need not look again."""
    take_over()
    folder.stat()
    lines = list[str]()
    for at, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            with suppress(FileNotFoundError):  # a link that leads nowhere, a file that has just been removed
                stat = (Path(at) / name).stat()
                lines.append(f"{at}/{name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def take_over() -> None:
    """Cancel the runs of this deployment that wait for this one, however many events there were."""
    if not runtime.deployment.id:
        return
    own = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(str(runtime.deployment.id))]))
    queued = FlowRunFilter(state=FlowRunFilterState(name=FlowRunFilterStateName(any_=[QUEUED])))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(deployment_filter=own, flow_run_filter=queued):
            covered: State[Any] = Cancelled(message=f"{runtime.flow_run.name} looked after this was asked for")
            client.set_flow_run_state(run.id, covered)
