"""GPUs for stages: a stage of the pool gpu gets as many free ones as it needs; any other stage sees none.

Each GPU has a lock file, the same for all clones and all users of a machine, in the first of FOLDERS that everybody may
write to: TMPDIR does not matter. A lock ends with its process; the files stay, are empty and may be read by all.
Containers have FOLDERS of their own: those that share GPUs have to share that folder too.

Not first come, first served: a stage that needs several GPUs waits until that many are free at the same time, and one
that needs fewer may take a free one meanwhile.
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

FOLDERS = ("/run/lock", "/dev/shm", "/tmp")  # noqa: S108 (/tmp last: some systems delete old files there)
VISIBLE = "CUDA_VISIBLE_DEVICES"
UNKNOWN = "0"  # stands for all GPUs there are, where nvidia-smi cannot tell them apart
POLL_SECONDS = 0.2


@contextmanager
def gpu_slot(pool: str, n: int, stop: threading.Event, log: Callable[[str], None]) -> Iterator[dict[str, str]]:
    """Environment variables for a stage: CUDA_VISIBLE_DEVICES names `n` GPUs that are its alone while the block runs,
    or none, for a stage of another pool.

    Raises:
        PipelineError: there are fewer than `n`, or a lock file cannot be opened.
        StoppedError: `stop` was set while all were in use.
    """
    if pool != GPU:
        yield {VISIBLE: ""}
        return
    ids = visible_gpus()
    if n > len(ids) and ids not in ([], [UNKNOWN]):
        raise PipelineError(
            f"the stage needs {n} GPUs (meta.gpus in its dvc.yaml) and {len(ids)} can be seen here: lower meta.gpus"
        )
    wanted, waiting = min(n, len(ids)) or 1, False
    while (held := take(ids or ["none"], wanted)) is None:
        if not waiting:
            waiting = True
            log(f"waiting: fewer than {wanted} of this machine's GPUs are free")
        if stop.wait(POLL_SECONDS):
            raise StoppedError("stopped while it waited for a GPU")
    try:
        yield {} if ids == [UNKNOWN] else {VISIBLE: ",".join(held if ids else [])}
    finally:
        release(held)


def take(ids: Sequence[str], n: int) -> dict[str, int] | None:
    """Lock any `n` of them that are free: their open lock files by id; None, and none is locked, where fewer are.

    One process at a time tries, so that two that need several cannot take some each.
    """
    folder = lock_folder()
    chooser = open_lock(folder / "unfreeze-gpus.lock")
    held: dict[str, int] = {}
    try:
        fcntl.flock(chooser, fcntl.LOCK_EX)
        for one in ids:
            if len(held) == n:
                break
            file = open_lock(folder / f"unfreeze-gpu-{re.sub(r'[^A-Za-z0-9.-]', '_', one)}.lock")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held[one] = file
            except BlockingIOError:
                os.close(file)
        if len(held) == n:
            return held
    except BaseException:
        release(held)
        raise
    finally:
        os.close(chooser)
    release(held)
    return None


def release(held: dict[str, int]) -> None:
    for file in held.values():
        os.close(file)


def lock_folder() -> Path:
    """The same for every user of the machine: it depends on the folders' modes alone.

    Raises PipelineError: everybody may write to none of FOLDERS.
    """
    for folder in FOLDERS:
        with suppress(OSError):
            mode = Path(folder).stat().st_mode
            if stat.S_ISDIR(mode) and mode & stat.S_IWOTH and mode & stat.S_ISVTX:
                return Path(folder)
    raise PipelineError(f"no folder for the locks of GPUs: one of {', '.join(FOLDERS)} must have the mode 1777")


def open_lock(path: Path) -> int:
    """An open file to lock, made where there is none.

    For reading, and without O_CREAT where there is one: Linux (fs.protected_regular) refuses to open another user's
    file for writing in a folder like /tmp; and to lock it one need not write.
    """
    while True:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            with suppress(FileExistsError):  # another process was faster
                file = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
                os.fchmod(file, 0o666)  # whatever the umask
                return file
        except OSError as error:
            raise PipelineError(f"the lock of a GPU cannot be opened: {error}: delete that file") from error


def visible_gpus() -> list[str]:
    """The GPUs that a stage started here would see: their UUIDs, or what CUDA_VISIBLE_DEVICES has where nvidia-smi does
    not know it. [UNKNOWN] where neither says anything; empty where CUDA_VISIBLE_DEVICES hides all."""
    tool = shutil.which("nvidia-smi")
    listed = subprocess.run([tool, "-L"], capture_output=True, encoding="utf-8").stdout if tool else ""  # noqa: S603
    uuids = re.findall(r"^GPU \d+:.*\(UUID: (\S+)\)", listed, re.MULTILINE)
    visible = os.environ.get(VISIBLE)
    if visible is None:
        return uuids or [UNKNOWN]
    found = list[str]()
    for one in (part.strip() for part in visible.split(",")):
        if not one or (one.removeprefix("-").isdigit() and not 0 <= int(one) < (len(uuids) or int(one) + 1)):
            break  # as CUDA reads it: what stands after a number that is none is hidden
        of_number = uuids[int(one)] if one.isdigit() and uuids else one
        found.append(next((uuid for uuid in uuids if uuid.startswith(of_number)), of_number))
    return list(dict.fromkeys(found))
