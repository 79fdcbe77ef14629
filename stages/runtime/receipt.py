"""Receipts: what a stage did, for those who started it and for whoever looks where the time went.

`.unfreeze/receipts/<stage>.json`, in the clone also where $UNFREEZE_HOME, which clones may share, is another folder. No
output of the stage: seconds differ at every run. `run` is $UNFREEZE_RUN as the caller set it, so nobody takes the
receipt of an earlier run for that of his own.
"""

import json
import os
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import stages

_facts: dict[str, Any] = {}


def folder() -> Path:
    return Path(".unfreeze/receipts")


def note(**facts: Any) -> None:
    """Facts for this process's receipt: items and computed (pictures), device, precision."""
    _facts.update(facts)


def remembered(items: int, computed: int) -> None:
    """How many of the pictures were computed: in the receipt, and said."""
    note(items=items, computed=computed)
    print(f"{computed:,} of {items:,} computed, the others remembered")


def peak_mib() -> float:
    """Largest resident set of this process. `ru_maxrss` counts the parent's too, from before the exec."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def write(stage: str, main_started: float) -> None:
    """`main_started`: `time.monotonic()` when the imports were done."""
    now = time.monotonic()
    receipt = {
        "stage": stage,
        "run": os.environ.get("UNFREEZE_RUN"),
        "seconds": round(now - stages.STARTED, 2),
        "startup_seconds": round(main_started - stages.STARTED, 2),
        "peak_mib": round(peak_mib()),
        **_facts,
    }
    whole = folder() / f"{stage}.{os.getpid()}.tmp"
    try:
        folder().mkdir(parents=True, exist_ok=True)
        whole.write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
        whole.replace(folder() / f"{stage}.json")
    except OSError as error:  # the result stands: no reason to lose it
        print(f"{stage}: no receipt: {error}", file=sys.stderr)
