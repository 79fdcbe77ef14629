"""What a stage wrote about its last run in this clone: pictures computed, seconds. See the stages' module `receipt`.

flows/ imports nothing of stages/, so the place of a receipt is written down in both; tests compare them.
"""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(".unfreeze/receipts")


def receipt_path(stage: str) -> Path:
    """`stage`: its address. `split` has split.json, `pipelines/folds/dvc.yaml:split@0` pipelines/folds/split@0.json."""
    *folders, name = [part for part in stage.replace("dvc.yaml:", "/", 1).split("/") if part not in ("", ".", "..")]
    return FOLDER.joinpath(*folders, f"{name}.json")


def read_receipt(stage: str) -> dict[str, Any]:
    """Empty where there is none, or none that can be read."""
    try:
        return dict(json.loads(receipt_path(stage).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
