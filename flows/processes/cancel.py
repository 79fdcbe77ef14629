"""Stops the stages of a run that is cancelled in Prefect, even if no Prefect worker started the run."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

POLL_SECONDS = 2


@contextmanager
def watch_for_cancel(stop: threading.Event) -> Iterator[None]:
    """While the block runs, set `stop` as soon as the server says that this flow run is being cancelled."""
    finished = threading.Event()
    watcher = threading.Thread(target=watch, args=(UUID(flow_run.get_id()), stop, finished), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def watch(flow_run_id: UUID, stop: threading.Event, finished: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not finished.wait(POLL_SECONDS):
            try:
                state = client.read_flow_run(flow_run_id).state
            except HTTPError:  # the server may come back, and may then report a cancellation
                continue
            if state and (state.is_cancelling() or state.is_cancelled()):
                stop.set()
                return
