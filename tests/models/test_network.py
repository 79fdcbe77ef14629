"""The equivalences that the recipe rests on."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from stages.models.networks.backbone import Body
from stages.models.networks.head import HeadParams, load_head, new_head, save_head
from stages.models.networks.network import Network, load_network, network_config, save_network
from stages.runtime.errors import StageError
from stages.tasks.single_label import SingleLabel
from stages.training.compute.batches import Batch
from stages.training.compute.device import Compute, DeviceParams, set_up_device
from stages.training.compute.predict import predict
from stages.training.loop.freeze import train_mode, train_only
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.step import train_step
from stages.vision.batches.preprocessing import Backbone, Resizing
from tests.conftest import BODY

TASK = SingleLabel.from_labels(["a", "b", "c"])
CPU = Compute(torch.device("cpu"), torch.float32)
BACKBONE = Backbone(
    name=BODY, sha256="", source="", mean=[0.5] * 3, std=[0.5] * 3, interpolation="bicubic", crop_pct=1.0
)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(1)
    body = Body(BODY)
    head = new_head(HeadParams(hidden=16, dropout=[0.25, 0.5]), body.n_features, TASK, seed=1)
    return CPU.to_device(Network(BACKBONE, Resizing(size_px=340, jpeg_quality=95), body, head, 32))


@pytest.fixture
def images() -> torch.Tensor:
    return CPU.to_device(torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)))


def state(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def unchanged(before: dict[str, torch.Tensor], module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if torch.equal(tensor, before[name])}


def step(network: Network, images: torch.Tensor, trained: list[bool], bn_freeze: bool) -> None:
    train_only(network.groups(), trained)
    lrs = [0.1 * on for on in trained]
    optimizer = make_optimizer(OptimizerParams(name="sgd", momentum=0.9, weight_decay=0.1), network.groups(), lrs)
    train_mode(network, bn_freeze)
    batch = Batch(images, np.arange(8), 0, torch.tensor([0, 1, 2, 0, 1, 2, 0, 1]))
    train_step(network, batch, TASK, optimizer, CPU)


def test_head_on_activations_equals_the_whole_network(network: Network, images: torch.Tensor) -> None:
    network.eval()
    with torch.inference_mode():
        activations = network.body(images)
        assert torch.equal(network.head(activations), network(images))
    assert activations.std(dim=0).min() > 0  # they say something about the pictures


def test_concat_pooling_is_max_then_average(network: Network, images: torch.Tensor) -> None:
    network.eval()
    with torch.inference_mode():
        maps = network.body.net.forward_features(images)
        pooled = network.body(images)
    torch.testing.assert_close(pooled, torch.cat([maps.amax((2, 3)), maps.mean((2, 3))], 1))


def test_a_frozen_body_is_bitwise_still_and_trains_as_in_eval(network: Network, images: torch.Tensor) -> None:
    """Also its BatchNorm buffers; and the head sees what precompute would have stored."""
    before = state(network)
    step(network, images, [False, False, True], bn_freeze=False)
    still = unchanged(before, network)
    assert {name for name in before if name.startswith("body.")} <= still
    assert not {"head.2.weight", "head.0.running_mean", "head.6.weight"} & still
    assert not any(module.training for module in network.body.modules())


def test_a_frozen_group_is_bitwise_still_while_the_others_learn(network: Network, images: torch.Tensor) -> None:
    before = state(network)
    step(network, images, [False, True, True], bn_freeze=False)
    still = unchanged(before, network)
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    early, late, _ = network.groups()
    assert {names[id(p)] for p in early} <= still
    assert not {names[id(p)] for p in late} & still
    moved = {name for name in before if "running" in name} - still
    frozen_norms = {
        f"{n}." for n, m in network.named_modules() if isinstance(m, _BatchNorm) and not m.weight.requires_grad
    }
    assert moved
    assert not any(name.startswith(tuple(frozen_norms)) for name in moved)


def test_bn_freeze_keeps_statistics_but_not_weights(network: Network, images: torch.Tensor) -> None:
    before = state(network)
    step(network, images, [True, True, True], bn_freeze=True)
    still = unchanged(before, network)
    body = {name for name in before if name.startswith("body.")}
    assert {name for name in body if "running" in name} <= still
    assert not {name for name, _ in network.named_parameters()} & still
    assert "head.0.running_mean" not in still


def test_a_frozen_head_is_bitwise_still_too(network: Network, images: torch.Tensor) -> None:
    before = state(network)
    step(network, images, [True, True, False], bn_freeze=False)
    assert {name for name in before if name.startswith("head.")} <= unchanged(before, network)


def test_groups_hold_every_parameter_once(network: Network) -> None:
    ids = [id(parameter) for group in network.groups() for parameter in group]
    assert len(ids) == len(set(ids)) == len(list(network.parameters()))


def test_resnet34_is_cut_where_the_course_cuts_it() -> None:
    body = Body("resnet34")
    names = {id(parameter): name for name, parameter in body.net.named_parameters()}
    early, late = ({names[id(p)].split(".")[0] for p in group} for group in body.groups())
    assert early == {"conv1", "bn1", "layer1", "layer2"}
    assert late == {"layer3", "layer4"}


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_byobnet", "swin_tiny_patch4_window7_224"])
def test_other_families_pool_to_two_numbers_a_channel(name: str) -> None:
    body = Body(name).eval()
    cfg = timm.get_pretrained_cfg(name)
    assert cfg is not None
    size = cfg.input_size[-1]
    with torch.inference_mode():
        assert body(torch.zeros(2, 3, size, size)).shape == (2, body.n_features)
    early, late = body.groups()
    assert early
    assert late


def test_saved_and_loaded_says_the_same(network: Network, images: torch.Tensor, tmp_path: Path) -> None:
    save_network(network, tmp_path / "model.safetensors")
    again = CPU.to_device(load_network(tmp_path / "model.safetensors"))
    assert (again.size_px, again.backbone, again.head.config) == (32, BACKBONE, network.head.config)
    with torch.inference_mode():
        assert torch.equal(again.eval()(images), network.eval()(images))
    save_head(network.head, tmp_path / "head.safetensors")
    assert load_head(tmp_path / "head.safetensors").config == network.head.config


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (
            {"name": "regression"},
            "is a model of the task `regression`, and this version knows only single_label: use the ",
        ),
        ({}, "does not contain the name of its task, as files of this version do: train it again"),
        (None, "does not contain the name of its task, as files of this version do: train it again"),
    ],
)
def test_a_file_of_an_unknown_task_is_refused_in_one_line(
    network: Network, tmp_path: Path, task: object, reason: str
) -> None:
    path = tmp_path / "any.safetensors"
    config: dict[str, Any] = network_config(network).model_dump()
    config["head"]["task"] = task
    for key, load, part in (("network", load_network, config), ("head", load_head, config["head"])):
        save_file({"weight": torch.zeros(1)}, path, metadata={key: json.dumps(part)})
        with pytest.raises(StageError, match=re.escape(f"{path} {reason}")) as caught:
            load(path)
        assert "\n" not in str(caught.value)


def test_new_head_depends_on_its_seed_alone() -> None:
    params = HeadParams(hidden=8, dropout=0.5)
    first = new_head(params, 4, TASK, seed=3)
    torch.rand(10)
    again, other = new_head(params, 4, TASK, seed=3), new_head(params, 4, TASK, seed=4)
    weights = [head.state_dict()["2.weight"] for head in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert [layer.p for layer in first if isinstance(layer, nn.Dropout)] == [0.5, 0.5]


def test_predict_drops_padding(network: Network, images: torch.Tensor) -> None:
    whole = predict(network, iter([Batch(images, np.arange(8), 0)]), 8, 1, TASK, CPU)
    padded = predict(network, iter([Batch(images, np.arange(8), 3)]), 5, 1, TASK, CPU)
    np.testing.assert_array_equal(padded, whole[:5])
    np.testing.assert_allclose(whole.sum(1), 1, rtol=1e-6)


def test_a_fresh_head_is_kaimings() -> None:
    """He et al. 2015, eq. 10: a standard deviation of sqrt(2 / inputs), no bias."""
    head = new_head(HeadParams(hidden=400, dropout=0.5), 600, TASK, seed=1)
    for layer, inputs in ((head[2], 600), (head[6], 400)):
        assert isinstance(layer, nn.Linear)
        assert float(layer.weight.detach().std()) == pytest.approx((2 / inputs) ** 0.5, rel=0.05)
        assert not layer.bias.any()


def test_the_optimisers_get_what_params_say(network: Network) -> None:
    made = [
        make_optimizer(OptimizerParams(name=name, momentum=0.7, weight_decay=0.2), network.groups(), [0.1, 0, 0.3])
        for name in ("sgd", "adamw")
    ]
    groups = [group for optimizer in made for group in optimizer.param_groups]
    assert [group["lr"] for group in groups] == [0.1, 0.3] * 2
    assert [group["weight_decay"] for group in groups] == [0.2] * 4
    assert [group.get("momentum", group.get("betas")) for group in groups] == [0.7, 0.7, (0.7, 0.99), (0.7, 0.99)]


def test_to_choose_the_device_seeds_what_dropout_draws_from() -> None:
    drawn = []
    for seed in (3, 3, 4):
        set_up_device(DeviceParams(name="cpu", precision="float32", fast_depthwise=True), seed)
        drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[1] != drawn[2]
