"""Reads what a stage wrote about its last run in this clone: pictures computed, seconds. See stages/runtime/receipt.py.

flows/ imports nothing of stages/, so both define the path of a receipt; tests/flows/test_rooms.py compares them.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(".unfreeze/receipts")


def receipt_path(stage: str) -> Path:
    """Returns the path of a stage's receipt. `stage` is its DVC address.

    The receipt of `split` is split.json, that of `pipelines/folds/dvc.yaml:split@0` is pipelines/folds/split@0.json.
    """
    *folders, name = [part for part in stage.replace("dvc.yaml:", "/", 1).split("/") if part not in ("", ".", "..")]
    return FOLDER.joinpath(*folders, f"{name}.json")


def read_receipt(stage: str) -> dict[str, Any]:
    """Returns the receipt, or an empty dict if there is none or it cannot be read."""
    try:
        return dict(json.loads(receipt_path(stage).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
