"""train_full: what is frozen stands still, epoch 0 is the network as it came, the kept epoch is handed on."""

from pathlib import Path

import pandas as pd
import pytest
import torch

from stages.models.networks.network import load_network
from stages.store.shards import Shards
from stages.train_full import TrainFullParams, epochs_that_end_a_cycle, phases
from stages.training.loop.fit import validate
from stages.vision.batches.picture_feed import PictureFeed
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams
from tests.conftest import Project
from tests.models.test_network import CPU

NONE = TransformsParams(kind="none", max_zoom=1.0, max_rotate_deg=0.0, max_lighting=0.0)


def looked(folder: Path, model: str) -> dict[str, float]:
    """Valid loss and accuracy of a stored network, on the pictures."""
    network = CPU.to_device(load_network(folder / model))
    valid = pd.read_csv(folder / "data/split/valid.csv")
    targets = torch.from_numpy(network.task.parse(valid["label"].tolist(), valid["id"].tolist()))
    shards = Shards(folder / "data/resize/shards")
    pictures = Pictures(shards, valid["sha256"].tolist(), network.backbone, network.size_px, 8, CPU)
    return validate(network, PictureFeed(pictures, targets, NONE, [0]), network.task, CPU)


def test_epoch_0_is_the_network_as_it_came(reproduced: Project) -> None:
    row = pd.read_csv(reproduced.folder / "data/train_full/history.csv").iloc[0]
    measured = looked(reproduced.folder, "data/unfreeze/model.safetensors")
    assert row["epoch"] == 0
    assert row["accuracy"] == pytest.approx(measured["accuracy"], abs=1e-6)
    assert row["valid_loss"] == pytest.approx(measured["valid_loss"], rel=0.02)  # the stage may have run in bfloat16


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_kept_epoch_is_handed_on_and_the_frozen_group_is_still(project: Project, keep: str) -> None:
    project.params({"train_full.keep": keep})
    project.run("python", "-m", "stages.train_full")
    history = pd.read_csv(project.folder / "data/train_full/history.csv")
    (kept,) = history[history["kept"] == 1].to_dict("records")
    assert kept["epoch"] == (history["valid_loss"].idxmin() if keep == "best" else 2)
    before = load_network(project.folder / "data/unfreeze/model.safetensors")
    after = load_network(project.folder / "data/train_full/model.safetensors")
    assert after.size_px == kept["size_px"]
    measured = looked(project.folder, "data/train_full/model.safetensors")
    assert measured["valid_loss"] == pytest.approx(kept["valid_loss"], rel=0.02)
    early = zip(before.groups()[0], after.groups()[0], strict=True)  # its rate is 0
    assert all(torch.equal(a, b) for a, b in early)
    late = zip(before.groups()[1], after.groups()[1], strict=True)
    assert any(not torch.equal(a, b) for a, b in late) == (kept["epoch"] > 0)


def test_a_number_for_all_sizes_or_one_for_each() -> None:
    values = {
        "size_px": [64, 96], "lrs": [0.1, 0.1, 0.1], "schedule": "sgdr", "n_cycles": 2, "cycle_len": [1, 3],
        "cycle_mult": 1, "hold_pct": 0.0, "bn_freeze": False, "label_smoothing": 0.0, "keep": "last", "batch_size": 8,
    }  # fmt: skip
    made = phases(TrainFullParams.model_validate(values))
    assert epochs_that_end_a_cycle(made) == {1, 2, 5, 8}
    assert epochs_that_end_a_cycle(phases(TrainFullParams.model_validate(values | {"schedule": "one_cycle"}))) == {2, 8}
    assert [(size, p.n_cycles, p.cycle_len) for size, p in made] == [(64, 2, 1), (96, 2, 3)]
