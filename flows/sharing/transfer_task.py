"""Pulls and pushes as separate Prefect tasks. Only they use the network, so only they are retried."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from flows.processes import process
from flows.sharing.remote import LOST_PREFIX

RETRIES = 3


def task_name(parameters: dict[str, Any]) -> str:
    stages = parameters["stages"]
    return f"{parameters['action']} {stages[0] if len(stages) == 1 else f'{len(stages)} stages'}"


@task(
    task_run_name=task_name,  # type: ignore[arg-type]  # the annotated type is a protocol that no function fits
    cache_policy=NO_CACHE,
    retries=RETRIES,
    retry_jitter_factor=0.5,
    retry_delay_seconds=exponential_backoff(backoff_factor=2),
    retry_condition_fn=lambda _, __, state: is_worth_a_retry(state),
)
def transfer(action: str, stages: Sequence[str], log: Callable[[str], None], stop: threading.Event) -> list[str]:
    """Runs an action of flows/sharing/remote.py. Returns the stages whose outputs are lost.

    Raises the errors of `process.run`.
    """
    lines = process.run(["flows.sharing.remote", action, *stages], log, stop, kept_prefixes=(LOST_PREFIX,))
    return [line.removeprefix(LOST_PREFIX) for line in lines]


def is_worth_a_retry(state: object) -> bool:
    """Returns False if the run was stopped."""
    return "StoppedError" not in str(getattr(state, "message", ""))
