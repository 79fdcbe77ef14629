"""One recipe, or one stage of a worker, in a clone at a time. A lock of the system: it ends with its process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zc.lockfile import LockError, LockFile

from flows.errors import PipelineError, StoppedError

CLONE = Path(".unfreeze/clone.lock")
SURE_SECONDS = 1  # the file may for a moment name the one who had the lock before


@contextmanager
def hold(path: Path, busy: Callable[[], None], who: str = "") -> Iterator[None]:
    """Take the lock; `busy` is called every 0.1 s until it is free, and may raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            lock = LockFile(str(path), content_template=f"{{pid}} {who}")
            break
        except LockError:
            busy()
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.close()


def another_is_here() -> None:
    process = CLONE.read_text(encoding="utf-8").split()[:1]
    raise PipelineError(
        f"another run is at work in this clone ({Path.cwd()}, process {' '.join(process)}): wait for its end, or use "
        "another clone; a worker that runs single stages needs a clone of its own"
    )


@contextmanager
def alone_with_recipe() -> Iterator[None]:
    """No other recipe in this clone, and no worker's stage. Raises PipelineError at once."""
    with hold(CLONE, another_is_here, "recipe"):
        yield


@contextmanager
def alone_with_stage(stop: threading.Event) -> Iterator[None]:
    """Wait for another worker's stage in this clone; a recipe is no reason to wait (PipelineError): it may itself wait
    for this very stage."""
    stage_seen = time.monotonic()

    def busy() -> None:
        nonlocal stage_seen
        if stop.is_set():
            raise StoppedError("stopped while it waited for another stage in this clone")
        if not CLONE.read_text(encoding="utf-8").endswith("recipe\n"):
            stage_seen = time.monotonic()
        elif time.monotonic() - stage_seen > SURE_SECONDS:
            another_is_here()

    with hold(CLONE, busy, "stage"):
        yield
