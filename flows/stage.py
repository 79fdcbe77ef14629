"""One stage in the current folder: `dvc repro --single-item STAGE`, and what became of it.

`--single-item` touches the locks of this stage alone, so stages that do not need each other run side by side; and
`--wait-for-lock` because DVC takes its repository lock again after the command and by default gives up after 3 s,
with the finished stage's result uncommitted (iterative/dvc#10784).
"""

import json
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from flows import process


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


def read_receipt(stage: str) -> dict[str, Any]:
    """What the stage wrote when it last ran here; see stages/runtime/receipt.py. Empty where it cannot be read."""
    path = Path(".unfreeze/receipts") / f"{stage}.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def run_stage(stage: str, force: bool, log: Callable[[str], None], stop: threading.Event) -> Outcome:
    """Bring one stage up to date. Raises what `process.run` does."""
    started, nonce = time.monotonic(), uuid.uuid4().hex
    command = ["dvc", "--wait-for-lock", "repro", "--single-item", *(["--force"] if force else []), stage]
    lines = process.run(command, log, stop, {"UNFREEZE_RUN": nonce})
    receipt = read_receipt(stage)
    fresh = receipt if receipt.get("run") == nonce else {}
    seconds = round(time.monotonic() - started, 2)
    return Outcome(stage, how(stage, lines, bool(fresh)), seconds, fresh.get("items"), fresh.get("computed"))


def how(stage: str, lines: Sequence[str], receipt: bool) -> How:
    """The stage's own receipt says that it was executed; of stages that write none, DVC's line does."""
    if receipt or f"Running stage '{stage}':" in lines:
        return How.EXECUTED
    return How.RESTORED if any(line.startswith(f"Stage '{stage}' is cached") for line in lines) else How.UNCHANGED
