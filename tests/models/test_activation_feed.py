"""Augmented activations: the body's own, in the head's batches."""

import numpy as np
import torch

from stages.models.frozen.activation_feed import AugmentedActivations
from stages.models.frozen.activations import activations
from stages.models.networks.network import load_network
from stages.store.shards import Shards
from stages.training.compute.batches import Batch
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams
from tests.conftest import Project
from tests.models.test_network import CPU


def epoch(project: Project, kind: str, batch_size: int, number: int = 0) -> tuple[list[Batch], torch.Tensor]:
    """(batches, targets) of one epoch; target i is i."""
    network = CPU.to_device(load_network(project.folder / "data/unfreeze/model.safetensors")).eval()
    shards = Shards(project.folder / "data/resize/shards")
    pictures = Pictures(shards, list(shards.sha256s()), network.backbone, 32, 8, CPU)
    params = TransformsParams.model_validate(
        {"kind": kind, "max_zoom": 1.1, "max_rotate_deg": 10.0, "max_lighting": 0.05}
    )
    feed = AugmentedActivations(network.body, pictures, torch.arange(len(pictures)), params, batch_size, [1])
    batches = list(feed.epoch(number))
    assert len(batches) == feed.n_batches()
    return batches, feed.targets


def test_without_augmentation_they_are_the_stored_ones_whatever_the_batch_size(reproduced: Project) -> None:
    network = CPU.to_device(load_network(reproduced.folder / "data/unfreeze/model.safetensors")).eval()
    shards = Shards(reproduced.folder / "data/resize/shards")
    pictures = Pictures(shards, list(shards.sha256s()), network.backbone, 32, 8, CPU)
    stored = np.stack([*activations(network.body, pictures)])
    for batch_size in (5, 8, 20):
        batches, targets = epoch(reproduced, "none", batch_size)
        for batch in batches:
            assert (len(batch.x), batch.padding) == (batch_size, 0)
            torch.testing.assert_close(batch.x, torch.from_numpy(stored[batch.rows]), rtol=1e-5, atol=1e-5)
            assert batch.targets().tolist() == batch.rows.tolist()
        assert {int(row) for batch in batches for row in batch.rows} == set(targets.tolist())


def test_augmented_they_are_others_each_epoch_and_the_same_again(reproduced: Project) -> None:
    def of_picture_0(number: int) -> torch.Tensor:
        batches, _ = epoch(reproduced, "side_on", 8, number)
        return next(b.x[int(np.flatnonzero(b.rows == 0)[0])] for b in batches if 0 in b.rows)

    assert not torch.allclose(of_picture_0(0), of_picture_0(1), rtol=1e-2)
    assert torch.equal(of_picture_0(1), of_picture_0(1))
