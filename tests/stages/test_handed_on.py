"""What the stages that train the whole network hand to the loops: params that no output names."""

from typing import Any

import pytest
import torch

from stages import train_full, unfreeze
from stages.models.networks.network import Network
from tests.conftest import Project


class HandedOnError(Exception):
    """The loop was called with these arguments."""


def handed(module: Any, loop: str, project: Project, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    def seen(*arguments: Any) -> None:
        raise HandedOnError(*arguments)

    monkeypatch.chdir(project.folder)
    monkeypatch.setattr(module, loop, seen)
    with pytest.raises(HandedOnError) as caught:
        module.main()
    return list(caught.value.args)


def rates(optimizer: torch.optim.Optimizer) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


def test_the_range_test_is_of_the_whole_network_at_rates_that_fall_towards_the_input(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.params({"unfreeze.lr_start": 1e-4, "unfreeze.lr_factor": 5, "train_full.bn_freeze": True})
    network, feed, _, optimizer, _, _, bn_freeze = handed(unfreeze, "range_test", project, monkeypatch)
    assert isinstance(network, Network)
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert rates(optimizer) == pytest.approx([1e-4 / 25, 1e-4 / 5, 1e-4])
    for group, parameters in zip(optimizer.param_groups, network.groups(), strict=True):
        assert [*map(id, group["params"])] == [*map(id, parameters)]
    assert feed.pictures.size_px == 32
    assert bn_freeze is True


@pytest.mark.parametrize(("bn_freeze", "label_smoothing"), [(False, 0.3), (True, 0.0)])
def test_the_training_gets_its_rates_and_its_ways(
    project: Project, monkeypatch: pytest.MonkeyPatch, bn_freeze: bool, label_smoothing: float
) -> None:
    ways = {"train_full.bn_freeze": bn_freeze, "train_full.label_smoothing": label_smoothing}
    project.params({"train_full.lrs": [1e-5, 1e-4, 1e-3], "train_full.schedule": "sgdr"} | ways)
    network, train, valid, _, optimizer, _, epochs, _, *how = handed(train_full, "fit", project, monkeypatch)
    assert how[:2] == [bn_freeze, label_smoothing]
    assert rates(optimizer) == [1e-5, 1e-4, 1e-3]
    for group, parameters in zip(optimizer.param_groups, network.groups(), strict=True):
        assert [*map(id, group["params"])] == [*map(id, parameters)]
    assert (train.pictures.size_px, valid.pictures.size_px, epochs) == (32, 32, 1)
