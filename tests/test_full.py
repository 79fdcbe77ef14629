"""The default data in full, as a user runs them: minutes each, so `make test-slow`."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.conftest import Project, copy_project, start

pytestmark = pytest.mark.slow
LIMIT_MIB = 1536
STAGES = [
    "fetch",
    "ingest",
    "split",
    "resize",
    "backbone",
    "precompute",
    "lr_find",
    "train_head",
    "augment",
    "unfreeze",
]
STAGES += ["train_full", "tta", "evaluate"]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("full")
    copy_project(folder)
    return start(Project(folder, shim=None))


def peak_mib(project: Project, stage: str) -> float:
    """Run a stage by hand; its largest resident set. (`ru_maxrss` would count ours too, from before the exec.)"""
    program = (
        f"import pathlib, re, runpy; runpy.run_module('stages.{stage}', run_name='__main__');"
        "print(re.search(r'VmHWM:\\s+(\\d+)', pathlib.Path('/proc/self/status').read_text())[1])"
    )
    out = project.run(sys.executable, "-c", program).stdout
    return int(out.splitlines()[-1]) / 1024


def test_memory_and_force(full: Project) -> None:
    by_hand = {stage: peak_mib(full, stage) for stage in STAGES}
    print(f"\npeak MiB: {by_hand}")
    assert max(by_hand.values()) < LIMIT_MIB, by_hand
    full.run("dvc", "commit", "-f", *STAGES)
    before = full.md5s()
    assert full.repro("--force") == STAGES or len(full.md5s()) == len(before)
    assert full.md5s() == before


def test_memory_for_twice_the_pictures(full: Project) -> None:
    raw = full.folder / "data/raw/elpv"
    header, *rows = (raw / "labels.csv").read_text().splitlines()
    for path in sorted((raw / "train").iterdir()):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(path.with_name(f"mirrored_{path.name}"))
    twice = [header, *rows, *(f"mirrored_{row}" for row in rows)]
    (raw / "labels.csv").unlink()  # DVC's link into its cache
    (raw / "labels.csv").write_text("\n".join(twice) + "\n")
    peaks = {stage: peak_mib(full, stage) for stage in ("ingest", "resize", "precompute")}
    assert max(peaks.values()) < LIMIT_MIB, peaks


def test_five_folds(full: Project, tmp_path: Path) -> None:
    """The floor that the README's figures must not fall through."""
    rows = []
    for fold in range(5):
        full.params({"split.cv_idx": fold})
        assert "precompute" not in full.repro("evaluate") or fold == 0
        metrics = json.loads((full.folder / "data/evaluate/metrics.json").read_text())
        rows.append([metrics["accuracy_tta"], metrics["log_loss_tta"]])
    accuracy, log_loss = np.mean(rows, axis=0)
    print(f"\nfive folds: accuracy_tta, log_loss_tta\n{rows}\nmean {accuracy:.4f} {log_loss:.4f}")
    assert accuracy >= 0.87, rows
    assert log_loss <= 0.31, rows
