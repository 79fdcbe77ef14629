"""Pull and push as Prefect tasks of their own: they alone talk to the network, so they alone are retried."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows.processes import process

RETRIES = 3


def named(parameters: dict[str, Any]) -> str:
    stages = parameters["stages"]
    return f"{parameters['what']} {stages[0] if len(stages) == 1 else f'{len(stages)} stages'}"


@task(
    task_run_name=named,  # type: ignore[arg-type]  # the type wanted is a protocol that no function fits
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_jitter_factor=0.5,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=lambda _, __, state: worth_it(state),
)
def move(what: str, stages: Sequence[str], log: Callable[[str], None], stop: threading.Event) -> list[str]:
    """`what`: a verb of flows/sharing/remote.py. Returns what `process.run` does."""
    return process.run(["remote", what, *stages], log, stop)


def worth_it(state: object) -> bool:
    """Not where somebody stopped it."""
    return "StoppedError" not in str(getattr(state, "message", ""))
