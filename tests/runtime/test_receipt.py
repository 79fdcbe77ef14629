"""What a stage leaves for those who started it."""

import json
import shutil
from pathlib import Path

import torch

from tests.conftest import Project


def receipts(folder: Path) -> dict[str, dict[str, object]]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((folder / ".unfreeze/receipts").iterdir())
    }


def test_every_stage_leaves_a_receipt(reproduced: Project) -> None:
    found = receipts(reproduced.folder)
    assert sorted(found) == [
        "augment", "backbone", "evaluate", "ingest", "lr_find", "precompute", "resize", "split", "train_full",
        "train_head", "tta", "unfreeze",
    ]  # fmt: skip
    for stage, receipt in found.items():
        assert receipt["stage"] == stage
        assert receipt["run"] is None
        assert 0 < float(str(receipt["startup_seconds"])) <= float(str(receipt["seconds"])) < 600
        assert int(str(receipt["peak_mib"])) > 10
    counts = {stage: (receipt.get("items"), receipt.get("computed")) for stage, receipt in found.items()}
    assert counts["ingest"] == counts["resize"] == counts["precompute"] == (40, 40)
    assert counts["tta"] == (9 + 4, 9 + 4)
    assert counts["split"] == (None, None)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert {stage: receipt["device"] for stage, receipt in found.items() if "device" in receipt} == dict.fromkeys(
        ["augment", "lr_find", "precompute", "train_full", "train_head", "tta", "unfreeze"], device
    )


def test_a_receipt_names_the_run_that_asked_and_stays_in_the_clone(project: Project, tmp_path: Path) -> None:
    project.run("env", "UNFREEZE_RUN=me", f"UNFREEZE_HOME={tmp_path}", "python", "-m", "stages.split")
    assert receipts(project.folder)["split"]["run"] == "me"
    assert list(tmp_path.glob("receipts*")) == []


def test_a_failed_stage_leaves_none(project: Project) -> None:
    (project.folder / ".unfreeze/receipts/split.json").unlink()
    project.params({"split.valid_pct": 2})
    assert project.run("python", "-m", "stages.split", check=False).returncode == 1
    assert not (project.folder / ".unfreeze/receipts/split.json").exists()


def test_a_folder_that_cannot_be_written_loses_no_result(project: Project) -> None:
    shutil.rmtree(project.folder / ".unfreeze/receipts")
    (project.folder / ".unfreeze/receipts").touch()
    done = project.run("python", "-m", "stages.split")
    assert "split: no receipt" in done.stderr
