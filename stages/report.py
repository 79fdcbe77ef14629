"""report: one page that opens offline in any browser: results, training curves, pictures, data, times.

In:   outputs of the other stages: data/{ingest,split,lr_find,train_head,augment,unfreeze,train_full,tta,evaluate},
      data/resize/shards for the thumbnails; .unfreeze/receipts, the receipts (run records) of stages run in this
      clone
Out:  data/evaluate/report.html. The section on run times shows the receipts, so the reports of two runs differ only in
      that section. No stage reads the report.
Recipe: "the first thing to do after building a model is to find a way to look at what it has built".
"""

import json
from importlib.metadata import version
from typing import Any

import pandas as pd

from stages.dataset.tables.split_tables import read_rows
from stages.models.networks.depthwise import prepare_network
from stages.models.networks.network import load_network
from stages.reporting.results import page
from stages.reporting.results.galleries import Gallery, cropper, data_uri, galleries
from stages.reporting.results.predictions import Predictions
from stages.reporting.results.scores import class_scores
from stages.runtime import receipt
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Seed, load, load_for_report
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.tasks.registry import TaskName, task_named
from stages.training.compute.device import DeviceParams, set_up_device

TRAININGS = ("train_head", "augment", "train_full")
VERSIONS = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn")
N_DUPLICATES = 6


def galleries_and_model(
    predictions: Predictions, worst_first: list[str], seed: int
) -> tuple[list[Gallery], dict[str, Any]]:
    """Returns (galleries of valid pictures, description of the model)."""
    # The CPU suffices for a few dozen pictures; flows/ hides GPUs from stages outside the pool gpu. `strict=False`
    # replaces a precision that the CPU lacks.
    compute = set_up_device(load("device", DeviceParams).model_copy(update={"name": "cpu"}), seed, strict=False)
    network = prepare_network(load_network(stage_folder("train_full") / "model.safetensors"), compute).eval()
    rows, shards = read_rows(stage_folder("split"), "valid"), Shards(stage_folder("resize") / "shards")
    shown = galleries(predictions, rows.ids, rows.sha256s, network, shards, compute, worst_first, seed)
    model = {
        "backbone": network.backbone.name,
        "size_px": network.size_px,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
    }
    return shown, model


def duplicate_pairs(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Returns the first pairs, with thumbnails."""
    sha256 = {id_: sha for part in page.PARTS for id_, sha in zip(*ids_and_sha256s(part), strict=True)}
    crop = cropper(Shards(stage_folder("resize") / "shards"), 1.0)
    pairs = table.head(N_DUPLICATES).to_dict("records")
    return [
        {str(key): value for key, value in pair.items()}
        | {"thumbnails": [data_uri(crop(sha256[str(pair[name])])) for name in ("id", "other_id")]}
        for pair in pairs
    ]


def ids_and_sha256s(part: str) -> tuple[list[str], list[str]]:
    rows = read_rows(stage_folder("split"), part)
    return rows.ids, rows.sha256s


def receipts() -> list[dict[str, Any]]:
    """Returns the receipts of the stages that ran in this clone, the longest run first."""
    contents = [json.loads(path.read_text(encoding="utf-8")) for path in receipt.folder().glob("*.json")]
    return sorted(contents, key=lambda content: (-content["seconds"], content["stage"]))


def main() -> None:
    seed = load("seed", Seed)
    valid = pd.read_parquet(stage_folder("tta") / "valid.parquet")
    task = task_named(load("task", TaskName)).from_columns(valid)
    predictions = Predictions.of(valid, "tta", task)
    train = pd.read_csv(stage_folder("split") / "train.csv", dtype=str, keep_default_na=False)
    n_train = task.counts(train["label"].tolist())
    classes = class_scores(predictions, n_train)
    shown, model = galleries_and_model(predictions, classes["label"].tolist(), seed)
    duplicates = pd.read_csv(stage_folder("split") / "duplicates.csv", dtype=str, keep_default_na=False)
    facts = page.Facts(
        predictions=predictions,
        metrics=json.loads((stage_folder("evaluate") / "metrics.json").read_text(encoding="utf-8")),
        steps=pd.read_csv(stage_folder("evaluate") / "steps.csv"),
        classes=classes,
        galleries=shown,
        histories={name: pd.read_csv(stage_folder(name) / "history.csv") for name in TRAININGS},
        rates={name: pd.read_csv(stage_folder(name) / "rates.csv") for name in TRAININGS},
        range_tests={name: page.read_range_test(stage_folder(name)) for name in ("lr_find", "unfreeze")},
        images=pd.read_parquet(stage_folder("ingest") / "images.parquet", columns=["label", "part", "width", "height"]),
        sizes={part: len(read_rows(stage_folder("split"), part).ids) for part in page.PARTS},
        rejected=pd.read_csv(stage_folder("ingest") / "rejected.csv", dtype=str, keep_default_na=False),
        duplicates=duplicates,
        duplicate_pairs=duplicate_pairs(duplicates),
        receipts=receipts(),
        params=load_for_report(),
        about=model,
        versions={name: version(name) for name in VERSIONS},
    )
    html = page.render(facts)
    with outputs(stage_folder("evaluate")) as folder:
        (folder / "report.html").write_text(html, encoding="utf-8")
    print(f"{stage_folder('evaluate') / 'report.html'}: {len(html) / 1e6:.1f} MB")


if __name__ == "__main__":
    run(main)
