"""export: the model in files that can be used without this project.

In:   data/train_full/{model.safetensors,history.csv}, data/evaluate/metrics.json, data/split/{train,valid}.csv,
      data/tta/valid.parquet, data/resize/shards (for the check)
Out:  data/export/model.safetensors  the network that train_full saved
      data/export/model.onnx         the same network in float32: stages/models/serving/onnx_graph.py
      data/export/model.json         task, preprocessing, backbone, metrics, data, versions: see `describe`
      data/export/README.md          the model card, as Hugging Face reads it
      data/export/classify.py        an example that uses the files of data/export
      data/export/preprocessing/     the code from a picture file to the network's input, for the example
      The ONNX file is compared with torch, both in float32, on export.n_check valid pictures. If a network
      cannot be exported to ONNX, only that file and the example are missing, and model.json says why.
Recipe: `learn.save`, for use by other programs. The fast.ai course ends with `predict` in the notebook.
"""

import hashlib
import inspect
import json
import shutil
import sys
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
from stages.runtime.errors import StageError, causes, one_line
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
from stages.vision.files import bit_depth, images, metadata, resized

EXAMPLE = Path("examples/classify.py")
# These modules import nothing else of the project.
PREPROCESSING = (bit_depth, images, metadata, network_input, resized)
MAX_DIFFERENCE = 1e-4  # in probability
PACKAGES = ("torch", "timm", "pillow", "onnx")


class ExportParams(Section):
    n_check: Positive
    data_name: str
    data_license: str


def largest_difference(network: Network, path: Path, resized: Shards, sha256s: list[str]) -> float:
    """Returns the largest difference between predictions of torch and of the ONNX file at `path`, both in float32."""
    compute = Compute(torch.device("cpu"), torch.float32)
    batch_size = compute.deterministic_batch_size(16)
    pictures = Pictures(resized, sha256s, network.backbone, network.size_px, batch_size, compute)
    network.to(memory_format=torch.channels_last)
    torch_predictions = predict(network, pictures.batches(), len(pictures), pictures.n_batches(), network.task, compute)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    onnx_predictions = []
    for start in range(0, len(pictures), 16):
        rows = range(start, min(start + 16, len(pictures)))
        pixels = torch.stack([pictures.cut(row) for row in rows]).permute(0, 3, 1, 2).contiguous()
        onnx_predictions.append(session.run(OUTPUTS[:1], {INPUT: pixels.numpy()})[0])
    return float(np.abs(torch_predictions - np.concatenate(onnx_predictions)).max())


def add_onnx(network: Network, folder: Path, resized: Shards, sha256s: list[str]) -> dict[str, Any]:
    """Writes model.onnx, checks it and copies the example; returns the entry `onnx` of model.json.

    If torch cannot write the network, or if ONNX Runtime computes other values, leaves neither file, prints the reason
    on stderr and returns the reason as `missing`.
    """
    path = folder / "model.onnx"
    try:
        write_onnx(network, path)
        largest = largest_difference(network, path, resized, sha256s)
        if not largest < MAX_DIFFERENCE:
            raise StageError(
                f"it gives other probabilities than torch, by {largest:.1e} on {len(sha256s)} pictures, and "
                f"{MAX_DIFFERENCE} is the most"
            )
    except (OSError, MemoryError):  # caused by the machine, not by the network
        raise
    except Exception as error:  # networks fail with many kinds of exception
        if "can't allocate memory" in str(error):
            raise
        path.unlink(missing_ok=True)
        root_cause = list(causes(error))[-1]  # the exporter's own message is only general advice
        kind = str(error) if isinstance(error, StageError) else f"it cannot be written ({type(error).__name__})"
        reason = f"{network.backbone.name} cannot be exported to ONNX: {kind}"
        detail = "" if isinstance(error, StageError) else one_line(f": {type(root_cause).__name__}: {root_cause}")[:300]
        print(
            f"export: no model.onnx and no classify.py: {reason}{detail}. "
            "All other files are written; choose another backbone.name to get both",
            file=sys.stderr,
        )
        receipt.note(missing="model.onnx")
        return {"missing": reason}
    print(f"ONNX and torch in float32 differ by {largest:.1e} at most, on {len(sha256s)} valid pictures")
    shutil.copyfile(EXAMPLE, folder / EXAMPLE.name)
    copy_preprocessing(folder / "preprocessing")
    return {
        "input": INPUT,
        "outputs": OUTPUTS,
        "pixels": "uint8 (n, 3, size_px, size_px), RGB; normalises itself",
        "largest_difference": {"probability": float(f"{largest:.1e}"), "n_pictures": len(sha256s)},
    }


def copy_preprocessing(folder: Path) -> None:
    """Copies the modules into the package `folder.name`, which needs only Pillow and NumPy."""
    folder.mkdir()
    for module in PREPROCESSING:
        package, _, name = module.__name__.rpartition(".")
        text = inspect.getsource(module).replace(f"from {package}", f"from {folder.name}")
        (folder / f"{name}.py").write_text(text, encoding="utf-8")


def data_sha256(*parts: Rows) -> str:
    """Returns a hash of the pictures' contents and labels, whatever their names and order."""
    lines = sorted(f"{sha} {label}\n" for rows in parts for sha, label in zip(rows.sha256s, rows.labels, strict=True))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def describe(
    network: Network, params: ExportParams, train: Rows, valid: Rows, predictions: pd.DataFrame, history: pd.DataFrame
) -> dict[str, Any]:
    """Returns the content of model.json, without metrics and ONNX."""
    backbone, task = network.backbone, network.task
    in_train, in_valid = task.counts(train.labels), task.counts(valid.labels)
    return {
        "task": task.model_dump(),
        "backbone": {
            "name": backbone.name,
            "source": backbone.source,
            "sha256": backbone.sha256,
            "license": getattr(timm.get_pretrained_cfg(backbone.name), "license", None),
        },
        "preprocessing": {
            "upright": "EXIF orientation applied, transparent on white, RGB",
            "resize": {**network.resize.model_dump(), "interpolation": "bilinear"},
            "centre_crop": {"share_of_shorter_side": backbone.crop_pct},
            "square": {"size_px": network.size_px, "interpolation": backbone.interpolation},
            "mean": backbone.mean,
            "std": backbone.std,
        },
        "onnx": {},
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
        **task.facts(task.read(predictions, "plain")),
        "data": {
            "name": params.data_name,
            "license": params.data_license,
            "sha256": data_sha256(train, valid),
            "n_train": len(train.ids),
            "n_valid": len(valid.ids),
            "pictures": {name: {"train": n, "valid": in_valid.get(name, 0)} for name, n in in_train.items()},
        },
        "versions": {name: version(name).partition("+")[0] for name in PACKAGES},
    }


def main() -> None:
    params = load("export", ExportParams)
    model = stage_folder("train_full") / "model.safetensors"
    network = load_network(model)
    train, valid = (read_rows(stage_folder("split"), part) for part in ("train", "valid"))
    predictions = pd.read_parquet(stage_folder("tta") / "valid.parquet")
    history = pd.read_csv(stage_folder("train_full") / "history.csv")
    description = describe(network, params, train, valid, predictions, history)
    description["metrics"] = json.loads((stage_folder("evaluate") / "metrics.json").read_text(encoding="utf-8"))
    checked_rows = np.linspace(0, len(valid.ids) - 1, min(params.n_check, len(valid.ids)), dtype=int)
    receipt.note(items=len(checked_rows), computed=len(checked_rows))
    shards = Shards(stage_folder("resize") / "shards")
    with outputs(stage_folder("export")) as folder:
        shutil.copyfile(model, folder / "model.safetensors")
        description["onnx"] = add_onnx(network, folder, shards, [valid.sha256s[row] for row in checked_rows])
        (folder / "model.json").write_text(
            json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
        (folder / "README.md").write_text(card(description), encoding="utf-8")
    if "missing" in description["onnx"]:  # DVC would have removed the files of an earlier network
        for name in ("model.onnx", EXAMPLE.name):
            (stage_folder("export") / name).unlink(missing_ok=True)
        shutil.rmtree(stage_folder("export") / "preprocessing", ignore_errors=True)


if __name__ == "__main__":
    run(main)
