"""Runs one stage in the current folder: `dvc repro --single-item STAGE`, and says what became of it.

`--single-item` takes the locks of this stage alone, so stages that do not need each other run side by side; and
`--wait-for-lock` because DVC takes its repository lock again after the command and by default gives up after 3 s,
with the finished stage's result uncommitted (iterative/dvc#10784).
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flows.pipeline.receipts import read_receipt
from flows.processes import process

LINES = ("Running stage '", "Stage '")  # of DVC


class How(StrEnum):
    EXECUTED = "executed"
    RESTORED = "restored"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Outcome:
    """What became of a stage. `items` and `computed` count pictures; None where the stage counts none."""

    stage: str
    how: How
    seconds: float
    items: int | None = None
    computed: int | None = None
    worker: str = ""


def run_stage(
    stage: str, force: bool, log: Callable[[str], None], stop: threading.Event, settings: Mapping[str, str]
) -> Outcome:
    """Bring one stage up to date. `settings`: environment variables for it. Raises what `process.run` does."""
    started, nonce = time.monotonic(), uuid.uuid4().hex
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
    lines = process.run(command, log, stop, LINES, {"UNFREEZE_RUN": nonce, **settings})
    receipt = read_receipt(stage)
    fresh = receipt if receipt.get("run") == nonce else {}
    seconds = round(time.monotonic() - started, 2)
    return Outcome(stage, how(stage, lines, bool(fresh)), seconds, fresh.get("items"), fresh.get("computed"))


def how(stage: str, lines: Sequence[str], receipt: bool) -> How:
    """The stage's own receipt says that it was executed; for stages that write none, DVC's line does."""
    if receipt or f"Running stage '{stage}':" in lines:
        return How.EXECUTED
    return How.RESTORED if any(line.startswith(f"Stage '{stage}' is cached") for line in lines) else How.UNCHANGED
