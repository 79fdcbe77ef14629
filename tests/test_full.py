"""The default data in full, as a user runs them: minutes each, so `make test-slow`."""

import json
import sys

import numpy as np
import pytest
from PIL import Image, ImageOps
from ruamel.yaml import YAML

from tests.conftest import ROOT, Project, copy_project, start

pytestmark = [pytest.mark.slow, pytest.mark.very_slow]  # the default pictures, on all cores: run it alone
LIMIT_MIB = 1536
STAGES = list(YAML(typ="safe").load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("full")
    copy_project(folder)
    return start(Project(folder, shim=None))


def peak_mib(project: Project, stage: str) -> float:
    """Run a stage by hand; its largest resident set, as its receipt says."""
    project.run(sys.executable, "-m", f"stages.{stage}")
    receipt = json.loads((project.folder / f".unfreeze/receipts/{stage}.json").read_text(encoding="utf-8"))
    return float(receipt["peak_mib"])


@pytest.fixture(scope="module")
def peaks(full: Project) -> dict[str, float]:
    """Every stage once, by hand."""
    return {stage: peak_mib(full, stage) for stage in STAGES}


def test_memory(peaks: dict[str, float]) -> None:
    print(f"\npeak MiB: {peaks}")
    assert max(peaks.values()) < LIMIT_MIB, peaks


@pytest.mark.usefixtures("peaks")
def test_force_changes_no_byte(full: Project) -> None:
    full.run("dvc", "commit", "-f", *STAGES)
    before = full.md5s()
    assert set(full.repro("--force")) == set(STAGES)
    assert full.md5s() == before


def test_memory_for_twice_the_pictures(full: Project, peaks: dict[str, float]) -> None:
    raw = full.folder / "data/raw/elpv"
    header, *rows = (raw / "labels.csv").read_text(encoding="utf-8").splitlines()
    for path in sorted((raw / "train").iterdir()):
        with Image.open(path) as image:
            ImageOps.mirror(image).save(path.with_name(f"mirrored_{path.name}"))
    twice = [header, *rows, *(f"mirrored_{row}" for row in rows)]
    (raw / "labels.csv").unlink()  # DVC's link into its cache
    (raw / "labels.csv").write_text("\n".join(twice) + "\n", encoding="utf-8")
    doubled = {stage: peak_mib(full, stage) for stage in ("ingest", "resize", "precompute")}
    print(f"\npeak MiB, twice the pictures: {doubled}")
    for stage, peak in doubled.items():
        assert peak < 1.1 * peaks[stage], (doubled, peaks)


def test_five_folds(full: Project) -> None:
    """The floor that the README's figures must not fall through."""
    rows = []
    for fold in range(5):
        full.params({"split.cv_idx": fold})
        assert "precompute" not in full.repro("evaluate") or fold == 0
        metrics = json.loads((full.folder / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
        rows.append([metrics["accuracy_tta"], metrics["log_loss_tta"]])
    accuracy, log_loss = np.mean(rows, axis=0)
    print(f"\nfive folds: accuracy_tta, log_loss_tta\n{rows}\nmean {accuracy:.4f} {log_loss:.4f}")
    assert accuracy >= 0.87, rows
    assert log_loss <= 0.31, rows
