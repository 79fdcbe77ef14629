"""Reserves GPUs for stages: a stage of the pool gpu gets as many free GPUs as it needs; any other stage sees no GPU.

Each GPU has one lock file for all clones and all users of a machine. It is in the first of LOCK_FOLDERS to which
everybody may write; TMPDIR does not matter. A lock is released when its process ends. The empty files stay, and
everybody may read them. Containers have their own LOCK_FOLDERS, so containers that share GPUs have to share that folder
too.

Stages are not served in the order in which they asked. A stage that needs several GPUs waits until so many are free at
the same time; meanwhile a stage that needs fewer may take a free GPU.
"""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flows.errors import PipelineError, StoppedError
from flows.pipeline.graph import GPU

LOCK_FOLDERS = ("/run/lock", "/dev/shm", "/tmp")  # noqa: S108 (/tmp is last, because some systems delete old files there)
VARIABLE = "CUDA_VISIBLE_DEVICES"
ALL_GPUS = "0"  # stands for all GPUs of the machine if nvidia-smi does not list them
POLL_SECONDS = 0.2


@contextmanager
def gpu_slot(pool: str, n: int, stop: threading.Event, log: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Reserves `n` GPUs for a stage while the block runs. Yields its environment variables: CUDA_VISIBLE_DEVICES
    names these GPUs, or no GPU if the stage is of another pool.

    Raises:
        PipelineError: there are fewer than `n` GPUs, or a lock file cannot be opened.
        StoppedError: `stop` was set while too few GPUs were free.
    """
    if pool != GPU:
        yield {VARIABLE: ""}
        return
    ids = visible_gpus()
    if n > len(ids) and ids not in ([], [ALL_GPUS]):
        raise PipelineError(
            f"the stage needs {n} GPUs (meta.gpus in its dvc.yaml) and {len(ids)} can be seen here: reduce meta.gpus"
        )
    n_locks, is_waiting = min(n, len(ids)) or 1, False
    while (locks := try_lock(ids or ["none"], n_locks)) is None:
        if not is_waiting:
            is_waiting = True
            log(f"waiting: fewer than {n_locks} of this machine's GPUs are free")
        if stop.wait(POLL_SECONDS):
            raise StoppedError("stopped while it waited for a GPU")
    try:
        yield {} if ids == [ALL_GPUS] else {VARIABLE: ",".join(locks if ids else [])}
    finally:
        release(locks)


def try_lock(ids: Sequence[str], n: int) -> dict[str, int] | None:
    """Locks any `n` free GPUs and returns their open lock files by id; None, without a lock, if fewer GPUs are free.

    Only one process at a time tries, so that two processes that need several GPUs cannot lock a part each.
    """
    folder = lock_folder()
    global_lock = open_lock(folder / "unfreeze-gpus.lock")
    locks: dict[str, int] = {}
    try:
        fcntl.flock(global_lock, fcntl.LOCK_EX)
        for gpu in ids:
            if len(locks) == n:
                break
            file = open_lock(folder / f"unfreeze-gpu-{re.sub(r'[^A-Za-z0-9.-]', '_', gpu)}.lock")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locks[gpu] = file
            except BlockingIOError:
                os.close(file)
        if len(locks) == n:
            return locks
    except BaseException:
        release(locks)
        raise
    finally:
        os.close(global_lock)
    release(locks)
    return None


def release(locks: dict[str, int]) -> None:
    for file in locks.values():
        os.close(file)


def lock_folder() -> Path:
    """Returns the folder for the lock files. It depends only on the folders' modes, so it is the same for every user.

    Raises PipelineError if everybody may write to none of LOCK_FOLDERS.
    """
    for folder in LOCK_FOLDERS:
        with suppress(OSError):
            mode = Path(folder).stat().st_mode
            if stat.S_ISDIR(mode) and mode & stat.S_IWOTH and mode & stat.S_ISVTX:
                return Path(folder)
    raise PipelineError(f"no folder for the locks of GPUs: one of {', '.join(LOCK_FOLDERS)} must have the mode 1777")


def open_lock(path: Path) -> int:
    """Opens the lock file for reading, and creates it if it is missing.

    An existing file is opened without O_CREAT and not for writing, because Linux (fs.protected_regular) forbids both
    for another user's file in a folder like /tmp. A lock does not need write access.
    """
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process has just created it
                file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                os.fchmod(file, 0o666)  # whatever the umask
                return file
        except OSError as error:
            raise PipelineError(f"the lock of a GPU cannot be opened: {error}: delete that file") from error


def visible_gpus() -> list[str]:
    """Returns the GPUs that a stage would see: their UUIDs, or the names in CUDA_VISIBLE_DEVICES that nvidia-smi
    does not know. Returns [ALL_GPUS] if neither names a GPU; an empty list if CUDA_VISIBLE_DEVICES hides all GPUs."""
    tool = shutil.which("nvidia-smi")
    output = subprocess.run([tool, "-L"], capture_output=True, encoding="utf-8").stdout if tool else ""  # noqa: S603
    uuids = re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", output, re.MULTILINE)
    visible = os.environ.get(VARIABLE)
    if visible is None:
        return uuids or [ALL_GPUS]
    gpus = list[str]()
    for name in (part.strip() for part in visible.split(",")):
        if not name or (name.removeprefix("-").isdigit() and not 0 <= int(name) < (len(uuids) or int(name) + 1)):
            break  # CUDA hides all GPUs that follow a number without a GPU
        start = uuids[int(name)] if name.isdigit() and uuids else name
        gpus.append(next((uuid for uuid in uuids if uuid.startswith(start)), start))
    return list(dict.fromkeys(gpus))
