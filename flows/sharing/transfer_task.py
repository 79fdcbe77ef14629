"""Pull and push as Prefect tasks of their own: they alone use the network, so they alone are retried."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows.processes import process
from flows.sharing.remote import LOST

RETRIES = 3


def task_name(parameters: dict[str, Any]) -> str:
    stages = parameters["stages"]
    return f"{parameters['action']} {stages[0] if len(stages) == 1 else f'{len(stages)} stages'}"


@task(
    task_run_name=task_name,  # type: ignore[arg-type]  # the type wanted is a protocol that no function fits
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_jitter_factor=0.5,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=lambda _, __, state: is_worth_a_retry(state),
)
def transfer(action: str, stages: Sequence[str], log: Callable[[str], None], stop: threading.Event) -> list[str]:
    """`action`: one of flows/sharing/remote.py. Returns the stages whose outputs are lost. Raises what `process.run`
    does."""
    lines = process.run(["flows.sharing.remote", action, *stages], log, stop, keep=(LOST,))
    return [line.removeprefix(LOST) for line in lines]


def is_worth_a_retry(state: object) -> bool:
    """Not where somebody stopped it."""
    return "StoppedError" not in str(getattr(state, "message", ""))
