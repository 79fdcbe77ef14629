"""What a worker tells the coordinator about a stage: an artifact of the worker's flow run that both read and write.

It is written anew every few seconds, so that the coordinator sees when a worker has died.
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import UUID

from httpx import HTTPError
from prefect.artifacts import Artifact
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.client.schemas.objects import FlowRun
from prefect.runtime import flow_run

from flows.pipeline.lock_file import Entries
from flows.processes.stage import How, Outcome

HEARTBEAT_SECONDS = 5
KEY = "stage-result"


@contextmanager
def heartbeat() -> Iterator[dict[str, Any]]:
    """The artifact's content, written every HEARTBEAT_SECONDS, and when the block ends with what was put into it."""
    run = UUID(flow_run.get_id())
    result: dict[str, Any] = {"worker": f"{socket.gethostname()}:{Path.cwd().name}", "beat": 0}
    over = threading.Event()
    with get_client(sync_client=True) as client:
        artifact = client.create_artifact(Artifact(key=KEY, type="result", data=result, flow_run_id=run))

        def beat() -> None:
            while not over.wait(HEARTBEAT_SECONDS):
                result["beat"] += 1
                with suppress(HTTPError):  # the next one may get through
                    client.update_artifact(artifact.id, ArtifactUpdate(data=result))

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield result
        finally:
            over.set()
            thread.join()
            client.update_artifact(artifact.id, ArtifactUpdate(data=result))


def enter(result: dict[str, Any], outcome: Outcome, entries: Entries) -> None:
    """Put into it what became of the stage, and its entry in dvc.lock."""
    result.update(outcome=asdict(outcome), entries=entries)


def outcome_of(result: dict[str, Any]) -> Outcome:
    return Outcome(**(result["outcome"] | {"how": How(result["outcome"]["how"]), "worker": result["worker"]}))


def read(client: SyncPrefectClient, run: FlowRun) -> dict[str, Any]:
    """Empty where the worker has not begun."""
    wanted = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[KEY]))
    found = client.read_artifacts(artifact_filter=wanted)
    return dict(found[0].data) if found and isinstance(found[0].data, dict) else {}
