"""TTA: with n_aug = 0 it is the plain prediction; else 0.7's stack of copies and views."""

import numpy as np
import pytest

from stages.store.shards import Shards
from stages.training.compute.predict import predict
from stages.tta import tta
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams, draw
from tests.conftest import Project
from tests.models.test_network import CPU

SIDE_ON = TransformsParams(kind="side_on", max_zoom=1.1, max_rotate_deg=10.0, max_lighting=0.05)


@pytest.fixture
def pictures(reproduced: Project) -> Pictures:
    from stages.models.networks.network import load_network

    network = load_network(reproduced.folder / "data/train_full/model.safetensors")
    shards = Shards(reproduced.folder / "data/resize/shards")
    return Pictures(shards, sorted(shards.sha256s())[:11], network.backbone, network.size_px, 4, CPU)


def test_n_aug_0_is_plain_and_n_aug_5_is_two_copies_and_five_views(reproduced: Project, pictures: Pictures) -> None:
    from stages.models.networks.network import load_network

    network = CPU.to_device(load_network(reproduced.folder / "data/train_full/model.safetensors"))
    plain, averaged = tta(network, pictures, SIDE_ON, 0, [1], CPU)
    assert plain.shape == (11, 3)
    np.testing.assert_array_equal(plain, averaged)
    plain, averaged = tta(network, pictures, SIDE_ON, 5, [1], CPU)
    views = [
        predict(network, pictures.batches(draws=draw(SIDE_ON, 11, [1, k])), 11, 3, network.task, CPU) for k in range(5)
    ]
    np.testing.assert_allclose(averaged, np.mean([plain, plain, *views], axis=0), atol=1e-6)
    assert (averaged != plain).any()


def test_a_picture_does_not_depend_on_its_neighbours(pictures: Pictures) -> None:
    """Whatever the batch, the place and the padding, its pixels are bitwise the same."""
    plain = {int(r): x for b in pictures.batches() for r, x in zip(b.rows, b.x, strict=True)}
    backwards = {int(r): x for b in pictures.batches(np.arange(11)[::-1]) for r, x in zip(b.rows, b.x, strict=True)}
    assert all((plain[r] == backwards[r]).all() for r in range(11))


def test_the_stored_table_has_plain_and_averaged_columns(reproduced: Project) -> None:
    import pandas as pd

    valid = pd.read_parquet(reproduced.folder / "data/tta/valid.parquet")
    assert list(valid.columns) == [
        "id",
        "label",
        *(f"{k}:{c}" for k in ("plain", "tta") for c in ("blue", "green", "red")),
    ]
    np.testing.assert_allclose(valid.filter(like="tta:").sum(axis=1), 1, rtol=1e-5)
    test = pd.read_parquet(reproduced.folder / "data/tta/test.parquet")
    assert test["id"].tolist() == ["t0", "t1", "t2", "t3"]
