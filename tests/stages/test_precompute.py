"""Precompute: the stored vectors are what the whole network sees; a picture's vector is its own."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.models.frozen.activations import activations
from stages.models.networks.network import load_network
from stages.store.shards import Shards
from stages.vision.batches.pictures import Pictures
from tests.conftest import Project
from tests.models.test_network import CPU


def test_head_on_stored_activations_equals_the_whole_network_on_the_picture(reproduced: Project) -> None:
    """In float32, through the same body: what `train_head` learns is what the network will say."""
    network = CPU.to_device(load_network(reproduced.folder / "data/unfreeze/model.safetensors")).eval()
    resized = Shards(reproduced.folder / "data/resize/shards")
    shas = sorted(resized.sha256s())
    pictures = Pictures(resized, shas, network.backbone, 32, 8, CPU)
    vectors = np.stack([*activations(network.body, pictures)])
    with torch.inference_mode():
        on_vectors = network.head(torch.from_numpy(vectors))
        whole = torch.cat([network(b.x)[: 8 - b.padding] for b in pictures.batches()])
    torch.testing.assert_close(on_vectors, whole, rtol=1e-5, atol=1e-5)


def test_the_stage_stores_one_vector_a_distinct_picture(reproduced: Project) -> None:
    resized = Shards(reproduced.folder / "data/resize/shards")
    stored = Shards(reproduced.folder / "data/precompute/shards")
    assert list(stored.sha256s()) == list(resized.sha256s())
    network = load_network(reproduced.folder / "data/unfreeze/model.safetensors").eval()
    shas = list(resized.sha256s())
    float32 = np.stack(
        [*activations(CPU.to_device(network.body), Pictures(resized, shas, network.backbone, 32, 8, CPU))]
    )
    where = [stored.locate(sha) for sha in shas]
    kept = np.stack([stored.vectors(shard, np.array([row]))[0] for shard, row in where])
    cosine = (kept * float32).sum(1) / np.linalg.norm(kept, axis=1) / np.linalg.norm(float32, axis=1)
    assert cosine.min() >= 0.999  # the stage may have run in bfloat16


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 5, 7, 63])
@pytest.mark.parametrize(("size_px", "batch_size"), [(33, 5), (37, 3), (40, 6), (33, 24)])
def test_what_is_said_of_a_picture_does_not_depend_on_its_place_and_neighbours(
    reproduced: Project, threads: int, size_px: int, batch_size: int
) -> None:
    """The body has SiLU, whose exp is another one in torch's vectors than beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        network = load_network(reproduced.folder / "data/unfreeze/model.safetensors").eval()
        body, shards = CPU.to_device(network.body), Shards(reproduced.folder / "data/resize/shards")
        shas = list(shards.sha256s())
        feed = Pictures(shards, shas, network.backbone, size_px, CPU.deterministic_batch_size(batch_size), CPU)
        among = dict(zip(shas, activations(body, feed), strict=True))
        for some in (shas[::-1], shas[7:], shas[-1:]):
            for sha, vector in zip(some, activations(body, replace(feed, sha256s=some)), strict=True):
                assert vector.tobytes() == among[sha].tobytes()
    finally:
        torch.set_num_threads(before)
