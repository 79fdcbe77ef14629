"""One stage on a worker: the flow behind the deployments stage/cpu and stage/gpu.

The worker's clone goes to the coordinator's commit, takes its params and the lock entries of the upstream stages, pulls
what the stage reads and what the run-cache says of it, runs it, pushes, and hands its lock entry back in an artifact.
The artifact is touched every few seconds, so that the coordinator sees when a worker has died.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from dvc.exceptions import DvcException
from httpx import HTTPError
from prefect import flow, get_run_logger
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed, Failed

from flows import lock
from flows.cancel import watch_for_cancel
from flows.clone import go_to
from flows.graph import PipelineError, open_repo, read_graph
from flows.locks import alone_with_stage, slot
from flows.process import FailedError, StoppedError
from flows.share import move
from flows.stage import How, Outcome, run_stage

BEAT_SECONDS = 5
RESULT = "stage-result"  # key of the artifact


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
        stage: its name in dvc.yaml.
        revision: a commit, or a branch or tag on origin.
        params: the text of params.yaml, where it differs from that of the commit.
        entries: entries of dvc.lock: those of the upstream stages, and the stage's own.
        force: run it, whatever is remembered.
    """
    log, stop = get_run_logger().info, threading.Event()
    try:
        with beats() as result, watch_for_cancel(stop), alone_with_stage(stop):
            return work(stage, revision, params, entries or {}, force, log, stop, result)
    except (PipelineError, FailedError, DvcException) as error:
        return Failed(message=str(error))
    except StoppedError as error:
        return Cancelled(message=str(error))


def work(
    stage: str, revision: str, params: str | None, entries: dict[str, Any], force: bool, log: Any,
    stop: threading.Event, result: dict[str, Any],
) -> State[None]:  # fmt: skip
    log(f"{Path.cwd()} goes to {go_to(revision, lock.outputs(open_repo(wait_for_lock=True)))}")
    if params is not None:
        Path("params.yaml").write_text(params, encoding="utf-8")
    repo = open_repo(wait_for_lock=True)
    lock.merge(repo, entries)
    node = read_graph(repo, [stage])[stage]
    move("pull", [stage], log, stop)
    with slot(node.pool, stop, log):
        outcome = run_stage(stage, force, log, stop)
    move("push", [stage], log, stop)
    result.update(outcome=asdict(outcome), entry=lock.entries(repo)[stage])
    return Completed(name="Completed" if outcome.how is How.EXECUTED else "Cached", message=str(outcome.how))


def outcome_of(result: dict[str, Any]) -> Outcome:
    return Outcome(**(result["outcome"] | {"how": How(result["outcome"]["how"]), "worker": result["worker"]}))


@contextmanager
def beats() -> Iterator[dict[str, Any]]:
    """An artifact that is written anew every BEAT_SECONDS, and with what was put into it when the block ends."""
    run = UUID(flow_run.get_id())
    result: dict[str, Any] = {"worker": f"{socket.gethostname()}:{Path.cwd().name}", "beat": 0}
    over = threading.Event()
    with get_client(sync_client=True) as client:
        artifact = client.create_artifact(Artifact(key=RESULT, type="result", data=result, flow_run_id=run))

        def beat() -> None:
            while not over.wait(BEAT_SECONDS):
                result["beat"] += 1
                with suppress(HTTPError):  # the next beat may get through
                    client.update_artifact(artifact.id, ArtifactUpdate(data=result))

        beater = threading.Thread(target=beat, daemon=True)
        beater.start()
        try:
            yield result
        finally:
            over.set()
            beater.join()
            client.update_artifact(artifact.id, ArtifactUpdate(data=result))
