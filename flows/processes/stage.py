"""Runs one stage in the current folder with `dvc repro --single-item STAGE`, and reports what DVC did.

`--single-item` locks only this stage, so stages that do not depend on each other run side by side. `--wait-for-lock` is
needed because DVC locks its repository again after the command. By default it gives up after 3 s, and the result of the
finished stage is not committed (iterative/dvc#10784).
"""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from flows.pipeline.receipts import read_receipt
from flows.processes import process

STATUS_LINES = ("Running stage '", "Stage '")  # how the lines begin in which DVC says what it does with a stage


class StageStatus(StrEnum):
    EXECUTED = "executed"
    RESTORED = "restored"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Outcome:
    """The result of bringing one stage up to date. `items` and `computed` count pictures; they are None if the stage
    counts no pictures."""

    stage: str
    status: StageStatus
    seconds: float
    items: int | None = None
    computed: int | None = None
    worker: str = ""


def run_stage(
    stage: str, force: bool, log: Callable[[str], None], stop: threading.Event, environment: Mapping[str, str]
) -> Outcome:
    """Brings one stage up to date. `environment` holds further environment variables for the stage.

    Raises the errors of `process.run`.
    """
    started, nonce = time.monotonic(), uuid.uuid4().hex
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
    lines = process.run(command, log, stop, STATUS_LINES, {"UNFREEZE_RUN": nonce, **environment})
    receipt = read_receipt(stage)
    own_receipt = receipt if receipt.get("run") == nonce else {}
    seconds = round(time.monotonic() - started, 2)
    status = stage_status(stage, lines, has_receipt=bool(own_receipt))
    return Outcome(stage, status, seconds, own_receipt.get("items"), own_receipt.get("computed"))


def stage_status(stage: str, lines: Sequence[str], has_receipt: bool) -> StageStatus:
    """Returns EXECUTED if the stage wrote a receipt in this run, or if DVC printed that it runs the stage."""
    if has_receipt or f"Running stage '{stage}':" in lines:
        return StageStatus.EXECUTED
    is_restored = any(line.startswith(f"Stage '{stage}' is cached") for line in lines)
    return StageStatus.RESTORED if is_restored else StageStatus.UNCHANGED
