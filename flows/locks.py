"""Who may work where: one flow in a clone, one GPU stage on a GPU. Locks of the system: they end with their process."""

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zc.lockfile import LockError, LockFile

from flows.graph import PipelineError
from flows.process import StoppedError

RECIPE, STAGE = Path(".unfreeze/recipe.lock"), Path(".unfreeze/stage.lock")


@contextmanager
def hold(path: Path, busy: Callable[[], None]) -> Iterator[None]:
    """Take the lock; `busy` is called every 0.1 s until it is free, and may raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        try:
            lock = LockFile(str(path))
            break
        except LockError:
            busy()
            time.sleep(0.1)
    try:
        yield
    finally:
        lock.close()


def no_recipe_here() -> None:
    raise PipelineError(
        f"another run is at work in this clone ({Path.cwd()}, process{RECIPE.read_text().rstrip()}): wait for its end, "
        "or use another clone; a worker that runs single stages needs a clone of its own"
    )


@contextmanager
def alone_with_recipe() -> Iterator[None]:
    """No other recipe in this clone, and no stage of somebody else's. Raises PipelineError at once."""
    with hold(RECIPE, no_recipe_here), hold(STAGE, no_recipe_here):
        yield


@contextmanager
def alone_with_stage() -> Iterator[None]:
    """No recipe in this clone (PipelineError); where another stage is at work, wait for its end."""
    with ExitStack() as recipe:
        recipe.enter_context(hold(RECIPE, no_recipe_here))
        with hold(STAGE, lambda: None):
            recipe.close()
            yield


@contextmanager
def slot(pool: str, stop: threading.Event) -> Iterator[None]:
    """For a gpu stage this machine's GPU, or that of CUDA_VISIBLE_DEVICES, whatever the clone; else nothing."""
    if pool != "gpu":
        yield
        return

    def busy() -> None:
        if stop.is_set():
            raise StoppedError("stopped while it waited for the GPU")

    name = os.environ.get("CUDA_VISIBLE_DEVICES", "all").replace(os.sep, "_")
    with hold(Path(tempfile.gettempdir()) / f"unfreeze-{os.getuid()}-gpu-{name}.lock", busy):
        yield
