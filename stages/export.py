"""export: the model in files that stand alone, for whoever uses it without this project.

In:   data/train_full/{model.safetensors,history.csv}, data/evaluate/metrics.json, data/split/{train,valid}.csv,
      data/tta/valid.parquet, data/resize/shards (for the check)
Out:  data/export/model.safetensors  the network as train_full left it
      data/export/model.onnx         the same in float32: stages/models/serving/onnx_graph.py
      data/export/model.json         classes, preprocessing, backbone, metrics, data, versions: see `describe`
      data/export/README.md          the model card, as Hugging Face reads it
      data/export/classify.py        the example that uses them, and
      data/export/preprocessing/     the project's own code from a picture file to the network's pixels, which it needs
      The ONNX file is compared with torch, both in float32, on export.n_check valid pictures.
Recipe: `learn.save`, for others. The course ends with the notebook's own `predict`.
"""

import hashlib
import inspect
import json
import shutil
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import timm
import torch

from stages.dataset.tables.split_tables import Rows, read_rows
from stages.models.networks.network import Network, load_network
from stages.models.serving.model_card import card
from stages.models.serving.onnx_graph import INPUT, OUTPUTS, write_onnx
from stages.runtime import receipt
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import BatchSize, Count, Positive, Section, Seed, load
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.training.compute.device import Compute
from stages.training.compute.predict import predict
from stages.vision.batches import network_input
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.transforms import TransformsParams
from stages.vision.files import images, resized

EXAMPLE = Path("examples/classify.py")
PREPROCESSING = (images, network_input, resized)  # they import nothing of the project but one another
MOST_DIFFERENCE = 1e-4  # in probability
PACKAGES = ("torch", "timm", "pillow", "onnx")


class ExportParams(Section):
    n_check: Positive
    data_name: str
    data_license: str


def difference(network: Network, path: Path, resized: Shards, sha256s: list[str]) -> float:
    """The largest between the probabilities of torch and of the ONNX file at `path`, both in float32."""
    compute = Compute(torch.device("cpu"), torch.float32)
    pictures = Pictures(resized, sha256s, network.about, network.size_px, compute.whole(16), compute)
    network.to(memory_format=torch.channels_last)
    by_torch = predict(network, pictures.batches(), len(pictures), pictures.n_batches(), compute)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    by_onnx = []
    for start in range(0, len(pictures), 16):
        rows = range(start, min(start + 16, len(pictures)))
        pixels = torch.stack([pictures.cut(row) for row in rows]).permute(0, 3, 1, 2).contiguous()
        by_onnx.append(session.run(OUTPUTS[:1], {INPUT: pixels.numpy()})[0])
    return float(np.abs(by_torch - np.concatenate(by_onnx)).max())


def copy_preprocessing(folder: Path) -> None:
    """The modules as a package `folder.name`, which needs Pillow and NumPy alone."""
    folder.mkdir()
    for module in PREPROCESSING:
        package, _, name = module.__name__.rpartition(".")
        text = inspect.getsource(module).replace(f"from {package} import", f"from {folder.name} import")
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def data_sha256(*parts: Rows) -> str:
    """Of the pictures' contents and labels, whatever their names and their order."""
    lines = sorted(f"{sha} {label}\n" for rows in parts for sha, label in zip(rows.sha256s, rows.labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(
    network: Network, params: ExportParams, train: Rows, valid: Rows, said: pd.DataFrame, history: pd.DataFrame
) -> dict[str, Any]:
    """What model.json holds, but for metrics and the check."""
    about, classes = network.about, network.head.shape.classes
    plain = said[[f"plain:{name}" for name in classes]].to_numpy(np.float64)
    in_train, in_valid = Counter(train.labels), Counter(valid.labels)
    return {
        "classes": classes,
        "backbone": {
            "name": about.name,
            "source": about.source,
            "sha256": about.sha256,
            "license": getattr(timm.get_pretrained_cfg(about.name), "license", None),
        },
        "preprocessing": {
            "upright": "EXIF orientation applied, transparent on white, RGB",
            "resize": {**network.resize.model_dump(), "interpolation": "bilinear"},
            "centre_crop": {"share_of_shorter_side": about.crop_pct},
            "square": {"size_px": network.size_px, "interpolation": about.interpolation},
            "mean": about.mean,
            "std": about.std,
        },
        "onnx": {
            "input": INPUT,
            "outputs": OUTPUTS,
            "pixels": "uint8 (n, 3, size_px, size_px), RGB; normalises itself",
        },
        "prediction": {
            "batch_size": load("tta.batch_size", BatchSize),
            "precision": load("device.precision", str),
            "n_aug": load("tta.n_aug", Count),
            "seed": load("seed", Seed),
            "transforms": load("transforms", TransformsParams).model_dump(),
        },
        "training": {
            "epochs": int((history["epoch"] > 0).sum()),
            "kept_epoch": int(history.loc[history["kept"] == 1, "epoch"].iloc[0]),
            "sizes_px": history.loc[history["epoch"] > 0, "size_px"].unique().tolist(),
        },
        "confidence": {"mean_probability_of_class_named": round(float(plain.max(axis=1).mean()), 6)},
        "data": {
            "name": params.data_name,
            "license": params.data_license,
            "sha256": data_sha256(train, valid),
            "n_train": len(train.ids),
            "n_valid": len(valid.ids),
            "pictures": {name: {"train": in_train[name], "valid": in_valid[name]} for name in classes},
        },
        "versions": {name: version(name).partition("+")[0] for name in PACKAGES},
    }


def main() -> None:
    params = load("export", ExportParams)
    model = stage_folder("train_full") / "model.safetensors"
    network = load_network(model)
    train, valid = (read_rows(stage_folder("split"), part) for part in ("train", "valid"))
    said = pd.read_parquet(stage_folder("tta") / "valid.parquet")
    history = pd.read_csv(stage_folder("train_full") / "history.csv")
    about = describe(network, params, train, valid, said, history)
    about["metrics"] = json.loads((stage_folder("evaluate") / "metrics.json").read_text())
    some = np.linspace(0, len(valid.ids) - 1, min(params.n_check, len(valid.ids)), dtype=int)
    receipt.note(items=len(some), computed=len(some))
    shards = Shards(stage_folder("resize") / "shards")
    with outputs(stage_folder("export")) as folder:
        shutil.copyfile(model, folder / "model.safetensors")
        shutil.copyfile(EXAMPLE, folder / "classify.py")
        copy_preprocessing(folder / "preprocessing")
        write_onnx(network, folder / "model.onnx")
        largest = difference(network, folder / "model.onnx", shards, [valid.sha256s[row] for row in some])
        print(f"ONNX and torch in float32 differ by {largest:.1e} at most, on {len(some)} valid pictures")
        if not largest < MOST_DIFFERENCE:
            raise StageError(
                f"the ONNX file says other probabilities than torch: by {largest:.1e} on {len(some)} pictures, and "
                f"{MOST_DIFFERENCE} is the most: take another backbone.name, this one does not go into ONNX"
            )
        about["onnx"]["largest_difference"] = {"probability": float(f"{largest:.1e}"), "n_pictures": len(some)}
        (folder / "model.json").write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n")
        (folder / "README.md").write_text(card(about))


if __name__ == "__main__":
    run(main)
