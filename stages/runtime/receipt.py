"""Receipts (run records): JSON files that say what a stage did and how long it took, for `flows` and for users.

A stage writes `.unfreeze/receipts/<stage>.json`; a stage of pipelines/folds/dvc.yaml writes
`.unfreeze/receipts/pipelines/folds/<stage>.json`. Receipts are always in the clone, even if $UNFREEZE_HOME, which
clones may share, is another folder. A receipt is not an output of the stage, because its seconds differ at every run.
Its `run` is $UNFREEZE_RUN as the caller set it, so that the caller does not mistake the receipt of an earlier run for a
new one.
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


def path(stage: str) -> Path:
    """Returns the path of a stage's receipt, given the DVC address of the stage.

    `split` has split.json, `pipelines/folds/dvc.yaml:split@0` has pipelines/folds/split@0.json.

    flows/pipeline/receipts.py implements the same rule.
    """
    *folders, name = [part for part in stage.replace("dvc.yaml:", "/", 1).split("/") if part not in ("", ".", "..")]
    return folder().joinpath(*folders, f"{name}.json")


def note(**facts: Any) -> None:
    """Adds facts to the receipt of this process: items and computed (numbers of pictures), device, precision."""
    _facts.update(facts)


def report_computed(items: int, computed: int) -> None:
    """Records and prints how many pictures were computed; the other pictures were taken from earlier runs."""
    note(items=items, computed=computed)
    if computed >= items:
        print(f"computed all {items:,} pictures")
    elif computed:
        print(f"computed {computed:,} of {items:,} pictures, {items - computed:,} taken from earlier runs")
    else:
        print(f"computed none of {items:,} pictures, all taken from earlier runs")


def peak_mib() -> float:
    """Returns the peak resident memory of this process in MiB.

    The fallback, `ru_maxrss`, may be the memory that the parent process had before it started this one.
    """
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))):
        return int(found[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def write(stage: str, main_started: float) -> None:
    """Writes the receipt. `stage`: the DVC address. `main_started`: `time.monotonic()` when the imports were done."""
    now = time.monotonic()
    receipt = {
        "stage": stage,
        "run": os.environ.get("UNFREEZE_RUN"),
        "seconds": round(now - stages.STARTED, 2),
        "startup_seconds": round(main_started - stages.STARTED, 2),
        "peak_mib": round(peak_mib()),
        **_facts,
    }
    final = path(stage)
    new = final.with_name(f"{final.name}.{os.getpid()}.tmp")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(json.dumps(receipt, indent=2) + "\n", encoding="utf-8")
        new.replace(final)
    except OSError as error:  # the outputs are complete, so the stage must not fail
        print(f"{stage}: no receipt: {error}", file=sys.stderr)
