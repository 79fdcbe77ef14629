"""Stops the stages of a run that is cancelled in Prefect, also where no worker watches over it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from httpx import HTTPError
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

SECONDS = 2


@contextmanager
def watch_for_cancel(stop: threading.Event) -> Iterator[None]:
    """While the block runs: set `stop` as soon as the server says that this flow run is to be cancelled."""
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(UUID(flow_run.get_id()), stop, over), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def watch(flow_run_id: UUID, stop: threading.Event, over: threading.Event) -> None:
    with get_client(sync_client=True) as client:
        while not over.wait(SECONDS):
            try:
                state = client.read_flow_run(flow_run_id).state
            except HTTPError:  # the server may come back, and a cancellation with it
                continue
            if state and (state.is_cancelling() or state.is_cancelled()):
                stop.set()
                return
