"""Start the recipe when the pictures change: the flow behind the deployment new-data/poll.

Polled on a schedule, or woken by the event `unfreeze.data-changed`. Never twice for the same content: a cheap
fingerprint (names, sizes, times) says that something may have changed, DVC's own hash of the folder whether it did.
Never two at once: the deployment recipe/main has a concurrency limit of 1, and Prefect takes an idempotency key once.
"""

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.deployments import run_deployment
from prefect.states import Completed, Failed
from prefect.variables import Variable

from flows.errors import PipelineError
from flows.pipeline.dvc_adapter import open_repo
from flows.pipeline.graph import read_graph


@flow(name="new-data", persist_result=False)
def new_data(stage: str = "ingest", deployment: str = "recipe/main", quiet_seconds: float = 30) -> Any:
    """Look at the folder that a stage reads; start a deployment if its content is new.

    Args:
        stage: its first dep is the folder: `ingest.path`.
        deployment: what to start.
        quiet_seconds: a folder that changed more recently is still being filled; after that time it is looked at once
            more, then by the next poll.
    """
    try:
        node = read_graph(open_repo(), [stage])[stage]
        dep = node.dvc.deps[0]
        fingerprint, newest = look(Path(dep.fs_path))
        if (early := newest + quiet_seconds - time.time()) > 0:  # an event comes once: wait for the folder to rest
            time.sleep(min(early, quiet_seconds))  # the clock that wrote it may be ahead of ours
            fingerprint, newest = look(Path(dep.fs_path))
    except (PipelineError, DvcException, OSError) as error:
        return Failed(message=str(error))
    if time.time() - newest < quiet_seconds:
        return Completed(name="Waiting", message=f"{dep.def_path} changed less than {quiet_seconds:g} s ago")
    key = f"unfreeze_{hashlib.sha256(dep.def_path.encode()).hexdigest()[:16]}"
    seen: Any = Variable.get(key) or {"fingerprint": "", "content": "", "n": 0}
    if fingerprint == seen["fingerprint"]:
        return Completed(name="Unchanged", message=f"{dep.def_path} is as it was")
    content = dep.get_hash().value
    if content == seen["content"]:
        Variable.set(key, seen | {"fingerprint": fingerprint}, overwrite=True)
        return Completed(name="Unchanged", message=f"{dep.def_path} was touched, its content is as it was")
    return start(deployment, key, {"fingerprint": fingerprint, "content": content, "n": seen["n"] + 1})


def start(deployment: str, key: str, found: dict[str, Any]) -> State[None]:
    """`n` counts the changes, so that the same content may come again after another, but one change starts one run."""
    once = f"{key}-{found['n']}-{found['content']}"
    run: Any = run_deployment(deployment, timeout=0, as_subflow=False, idempotency_key=once)
    Variable.set(key, found, overwrite=True)
    return Completed(message=f"started {deployment}: {run.name}")


def look(folder: Path) -> tuple[str, float]:
    """(hash of names, sizes and times; time of the latest change in seconds) of everything below a folder."""
    lines, newest = list[str](), folder.stat().st_mtime
    for at, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            with suppress(FileNotFoundError):  # a link that leads nowhere, a file that has just been removed
                stat = (Path(at) / name).stat()
                lines.append(f"{at}/{name} {stat.st_size} {stat.st_mtime_ns}")
                newest = max(newest, stat.st_ctime)
        newest = max(newest, Path(at).stat().st_mtime)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest(), newest
