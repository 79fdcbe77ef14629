"""What a worker reports about a stage. The worker writes it as an artifact of its flow run; the coordinator reads it.

The worker writes the artifact again every few seconds, so that the coordinator notices when the worker has died.
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
from flows.processes.stage import Outcome, StageStatus

HEARTBEAT_SECONDS = 5
ARTIFACT_KEY = "stage-result"
# Older commits call the field so. A worker imports its code before it checks out the commit to run, so code of an older
# commit may still write or read the field.
STATUS_KEY = "how"


@contextmanager
def published_result() -> Iterator[dict[str, Any]]:
    """Creates the artifact and yields its content, a dict.

    The dict is written to Prefect every HEARTBEAT_SECONDS, and once more when the block ends.
    """
    run_id = UUID(flow_run.get_id())
    result: dict[str, Any] = {"worker": f"{socket.gethostname()}:{Path.cwd().name}", "beat": 0}
    finished = threading.Event()
    with get_client(sync_client=True) as client:
        artifact = client.create_artifact(Artifact(key=ARTIFACT_KEY, type="result", data=result, flow_run_id=run_id))

        def write_heartbeats() -> None:
            while not finished.wait(HEARTBEAT_SECONDS):
                result["beat"] += 1
                with suppress(HTTPError):  # the next heartbeat may reach the server
                    client.update_artifact(artifact.id, ArtifactUpdate(data=result))

        thread = threading.Thread(target=write_heartbeats, daemon=True)
        thread.start()
        try:
            yield result
        finally:
            finished.set()
            thread.join()
            client.update_artifact(artifact.id, ArtifactUpdate(data=result))


def record(result: dict[str, Any], outcome: Outcome, entries: Entries) -> None:
    """Adds the stage's outcome and its dvc.lock entry to the artifact's content."""
    fields = asdict(outcome)
    fields[STATUS_KEY] = fields.pop("status")
    result.update(outcome=fields, entries=entries)


def outcome_from(result: dict[str, Any]) -> Outcome:
    fields = dict(result["outcome"])
    status = StageStatus(fields.pop(STATUS_KEY))
    return Outcome(**(fields | {"status": status, "worker": result["worker"]}))


def read(client: SyncPrefectClient, run: FlowRun) -> dict[str, Any]:
    """Returns the artifact's content, or an empty dict if the worker has not started."""
    wanted = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]), key=ArtifactFilterKey(any_=[ARTIFACT_KEY])
    )
    artifacts = client.read_artifacts(artifact_filter=wanted)
    return dict(artifacts[0].data) if artifacts and isinstance(artifacts[0].data, dict) else {}
