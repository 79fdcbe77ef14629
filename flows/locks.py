"""Who may work where: one flow in a clone, one GPU stage on a GPU. Locks of the system: they end with their process."""

import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from zc.lockfile import LockError, LockFile

from flows.graph import PipelineError
from flows.process import StoppedError

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
    """No other recipe in this clone, and no stage of somebody else's. Raises PipelineError at once."""
    with hold(CLONE, another_is_here, "recipe"):
        yield


@contextmanager
def alone_with_stage(stop: threading.Event) -> Iterator[None]:
    """No recipe in this clone (PipelineError: it may be waiting for this very stage); another stage is waited for."""
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


@contextmanager
def slot(pool: str, stop: threading.Event, log: Callable[[str], None]) -> Iterator[None]:
    """For a gpu stage this machine's GPUs, or those of CUDA_VISIBLE_DEVICES, whatever the clone; else nothing."""
    if pool != "gpu":
        yield
        return

    told = False

    def busy() -> None:
        nonlocal told
        if stop.is_set():
            raise StoppedError("stopped while it waited for the GPU")
        if not told:
            told = True
            log("waiting: another stage has this machine's GPU")

    with ExitStack() as held:
        for gpu in gpus():
            held.enter_context(hold(Path(tempfile.gettempdir()) / f"unfreeze-{os.getuid()}-gpu-{gpu}.lock", busy))
        yield


def gpus() -> list[str]:
    """Those that a stage started here would see, by their UUID or, without NVIDIA's tool, their number: sorted, so that
    two who want several of them cannot wait for each other."""
    tool = shutil.which("nvidia-smi")
    told = subprocess.run([tool, "-L"], capture_output=True, encoding="utf-8").stdout if tool else ""  # noqa: S603
    uuids = re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", told, re.MULTILINE) or ["0"]
    wanted = os.environ.get("CUDA_VISIBLE_DEVICES")
    if wanted is None:
        return sorted(uuids)
    numbers = [one.strip() for one in wanted.split(",") if one.strip()] or ["none"]
    return sorted({uuids[int(one)] if one.isdigit() and int(one) < len(uuids) else one for one in numbers})
