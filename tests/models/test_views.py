"""Views: what the body says of augmented pictures, once, whichever other pictures there are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.models.frozen.activations import activations, resized_sha256s
from stages.models.frozen.views import Views, ViewsFeed
from stages.models.networks.network import load_network
from stages.store.items import ItemsParams
from stages.store.shards import Shards
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw_each
from tests.conftest import Project
from tests.models.test_network import CPU

SIDE_ON = TransformsParams(kind="side_on", max_zoom=1.1, max_rotate_deg=10.0, max_lighting=0.05)


@pytest.fixture
def views(reproduced: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Views:
    """Two of each picture, nothing remembered yet."""
    monkeypatch.chdir(reproduced.folder)  # the key holds the weights of data/backbone
    monkeypatch.setenv("UNFREEZE_HOME", str(tmp_path))
    return make(load(), 2)


def load() -> Pictures:
    network = load_network(Path("data/unfreeze/model.safetensors"))
    shards = Shards(Path("data/resize/shards"))
    return Pictures(shards, list(shards.sha256s()), network.backbone, 32, 8, CPU)


def make(pictures: Pictures, n_views: int, key: int = 1) -> Views:
    body = CPU.to_device(load_network(Path("data/unfreeze/model.safetensors"))).eval().body
    return Views(body, pictures, SIDE_ON, n_views, [key], ItemsParams(max_gib=1.0), "weights")


def computed(views: Views) -> int:
    views.compute_missing()
    return views.n_computed()


def test_a_view_is_what_the_body_says_of_the_picture_augmented_by_its_own_draws(views: Views) -> None:
    assert computed(views) == 2 * len(views.pictures)
    shas = views.pictures.sha256s[5:16]
    some = replace(views.pictures, sha256s=shas)
    draws = draw_each(SIDE_ON, list(resized_sha256s(some.store, shas).values()), [1, 1])
    torch.testing.assert_close(
        torch.from_numpy(views.take(1, shas)), torch.from_numpy(np.stack([*activations(views.body, some, draws)]))
    )
    assert not np.allclose(views.take(0, shas), views.take(1, shas), rtol=1e-2)


def test_only_what_is_new_is_computed(views: Views) -> None:
    n = len(views.pictures)
    few = make(replace(views.pictures, sha256s=views.pictures.sha256s[:-3]), 2)
    assert computed(few) == 2 * (n - 3)
    assert computed(views) == 2 * n  # this one has not seen what the other has made since
    assert computed(make(views.pictures, 2)) == 0
    assert computed(make(views.pictures, 3)) == n
    assert computed(make(views.pictures, 1, key=2)) == n
    shas = views.pictures.sha256s[:4]
    np.testing.assert_array_equal(few.take(0, shas), make(views.pictures, 2).take(0, shas))


def test_what_was_damaged_later_is_computed_again_and_counted(views: Views) -> None:
    shas = views.pictures.sha256s
    n, before = computed(views), views.take(0, shas)
    [segment] = views.collections[0].segments
    data = bytearray(segment.path.read_bytes())
    data[7] ^= 1
    segment.path.write_bytes(data)
    np.testing.assert_array_equal(views.take(0, shas), before)
    assert views.n_computed() == n + 1


def test_an_epoch_sees_one_view_of_every_picture(views: Views) -> None:
    shas = views.pictures.sha256s
    feed = ViewsFeed(views, shas, torch.arange(len(shas)), 8, [7])
    for epoch in (0, 1, 2):
        batches = list(feed.epoch(epoch))
        assert len(batches) == feed.n_batches()
        assert {int(row) for batch in batches for row in batch.rows} == set(range(len(shas)))
        for x, rows, *_ in batches:
            np.testing.assert_array_equal(x.numpy(), views.take(epoch % 2, [shas[row] for row in rows]))
