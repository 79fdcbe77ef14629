"""A lock that lets only one pipeline run, or one worker's stage, use a clone at a time.

It is a lock of the operating system, so it is released when its process ends.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zc.lockfile import LockError, LockFile

from flows.errors import PipelineError, StoppedError

CLONE_LOCK = Path(".unfreeze/clone.lock")
RUN, STAGE = "recipe", "stage"  # the holder, as the lock file names it
STALE_NAME_SECONDS = 1  # for a moment after the lock was taken, its file may still name the previous holder


@contextmanager
def hold_lock(path: Path, on_busy: Callable[[], None], holder: str) -> Iterator[None]:
    """Hold the lock while the block runs. While another process holds it, `on_busy` is called every 0.1 s and may
    raise an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            lock = LockFile(str(path), content_template=f"{{pid}} {holder}")
            break
        except LockError:
            on_busy()
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.close()


def raise_clone_in_use() -> None:
    process = CLONE_LOCK.read_text(encoding="utf-8").split()[:1]
    raise PipelineError(
        f"another run is at work in this clone ({Path.cwd()}, process {' '.join(process)}): wait for its end, or use "
        "another clone; a worker that runs single stages needs a clone of its own"
    )


@contextmanager
def lock_clone_for_run() -> Iterator[None]:
    """Hold the clone's lock for one pipeline run. Raises PipelineError at once if another process holds the lock."""
    with hold_lock(CLONE_LOCK, raise_clone_in_use, RUN):
        yield


@contextmanager
def lock_clone_for_stage(stop: threading.Event) -> Iterator[None]:
    """Hold the clone's lock for one stage. If another worker's stage holds it, wait.

    If a pipeline run holds it, raise PipelineError, because that run may be waiting for this stage: waiting would be a
    deadlock. Raises StoppedError if `stop` is set while this function waits.
    """
    no_run_seen_at = time.monotonic()  # the last time at which the lock file did not name a pipeline run

    def on_busy() -> None:
        nonlocal no_run_seen_at
        if stop.is_set():
            raise StoppedError("stopped while it waited for another stage in this clone")
        if not CLONE_LOCK.read_text(encoding="utf-8").endswith(f"{RUN}\n"):
            no_run_seen_at = time.monotonic()
        elif time.monotonic() - no_run_seen_at > STALE_NAME_SECONDS:
            raise_clone_in_use()

    with hold_lock(CLONE_LOCK, on_busy, STAGE):
        yield
