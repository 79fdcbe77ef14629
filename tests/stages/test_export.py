"""export: the model in files that stand alone, the same bytes at every run, and a card that holds the figures."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from ruamel.yaml import YAML

from stages.dataset.tables.split_tables import Rows
from stages.export import data_sha256
from stages.models.networks.backbone import Body
from stages.models.networks.head import HeadParams, new_head
from stages.models.networks.network import Network, load_network, save_network
from stages.models.serving.model_card import card
from stages.models.serving.onnx_graph import UInt8Network
from stages.store.shards import Shards
from stages.training.compute.device import Compute
from stages.training.compute.predict import predict
from stages.vision.batches.pictures import Pictures
from tests.conftest import Project

PREPROCESSING = [f"preprocessing/{name}.py" for name in ("bit_depth", "images", "metadata", "network_input", "resized")]
FILES = ["README.md", "classify.py", "model.json", "model.onnx", "model.safetensors", *PREPROCESSING]


@pytest.fixture(scope="module")
def about(exported: Project) -> dict[str, object]:
    found: dict[str, object] = json.loads((exported.folder / "data/export/model.json").read_text(encoding="utf-8"))
    return found


def test_onnx_says_what_torch_says_of_any_number_of_pictures(exported: Project) -> None:
    network = load_network(exported.folder / "data/export/model.safetensors")
    shards = Shards(exported.folder / "data/resize/shards")
    compute = Compute(torch.device("cpu"), torch.float32)
    pictures = Pictures(shards, list(shards.sha256s()), network.backbone, network.size_px, 16, compute)
    by_torch = predict(network, pictures.batches(), len(pictures), pictures.n_batches(), network.task, compute)
    session = onnxruntime.InferenceSession(exported.folder / "data/export/model.onnx")
    pixels = np.stack([pictures.cut(row).permute(2, 0, 1).numpy() for row in range(len(pictures))])
    for rows in (slice(0, 1), slice(0, len(pictures))):
        probabilities, heat = session.run(["probabilities", "heat"], {"pixels": pixels[rows]})
        np.testing.assert_allclose(probabilities, by_torch[rows], atol=1e-5)
        assert heat.shape[0] == len(pixels[rows])
        with torch.inference_mode():
            _, expected = UInt8Network(network)(torch.from_numpy(pixels[rows]))
        np.testing.assert_allclose(heat, expected.numpy(), atol=1e-3)


def diverged(network: Network) -> Network:
    """Its probabilities are no numbers, which nothing equals."""
    with torch.no_grad():
        next(network.head.parameters()).fill_(float("nan"))
    return network


def untraceable(network: Network) -> Network:
    """A body that raises while it is traced: LeViT, at a size that it does not take."""
    body = Body("levit_128s")
    head = new_head(HeadParams(hidden=16, dropout=0.5), body.n_features, network.task, seed=0)
    about = network.backbone.model_copy(update={"name": "levit_128s"})
    return Network(about, network.resize, body, head, size_px=32)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (
            diverged,
            "test_efficientnet cannot be exported to ONNX: it gives other probabilities than torch, by nan on 9 pict",
        ),
        (untraceable, "levit_128s cannot be exported to ONNX: it cannot be written (TorchExportError)"),
    ],
)
def test_a_network_that_does_not_go_into_onnx_costs_that_alone(
    exported: Project, tmp_path: Path, make: Callable[[Network], Network], reason: str
) -> None:
    shutil.copytree(exported.folder, tmp_path / "project", symlinks=True)
    project, model = (
        Project(tmp_path / "project", exported.shim),
        tmp_path / "project/data/train_full/model.safetensors",
    )
    network = make(load_network(model))
    model.unlink()
    save_network(network, model)
    folder, found = tmp_path / "project/data/export", []
    for _ in range(2):  # the first removes what another network left; both write the same bytes
        done = project.run("python", "-m", "stages.export")
        assert len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith(f"export: no model.onnx and no classify.py: {reason}")
        assert "\ufffd" not in done.stderr
        found.append({path.name: path.read_bytes() for path in folder.glob("[!.]*")})
    assert sorted(found[0]) == ["README.md", "model.json", "model.safetensors"]
    assert found[0] == found[1]
    assert found[0]["model.safetensors"] == model.read_bytes()
    about, card_text = json.loads(found[0]["model.json"]), found[0]["README.md"].decode()
    assert about["onnx"]["missing"].startswith(reason)
    assert list(about["onnx"]) == ["missing"]
    assert about["data"]["n_valid"] == 9
    assert f"There is no `model.onnx`: {reason}" in card_text
    assert 'library_name: "timm"' in card_text
    assert "classify.py" not in card_text
    assert str(tmp_path) not in str(found)
    assert (
        json.loads((tmp_path / "project/.unfreeze/receipts/export.json").read_text(encoding="utf-8"))["missing"]
        == "model.onnx"
    )


def test_the_same_bytes_again_and_nothing_of_this_machine(exported: Project, tmp_path: Path) -> None:
    folder = exported.folder / "data/export"
    before = {name: (folder / name).read_bytes() for name in FILES}
    assert exported.repro("--force", "--single-item", "export") == ["export"]
    assert {name: (folder / name).read_bytes() for name in FILES} == before
    graph = onnx.load(folder / "model.onnx").graph
    assert not [node for node in graph.node if node.metadata_props or node.doc_string]
    for name in ("model.onnx", "model.json", "README.md"):
        assert not re.search(rb"site-packages|stack_trace|\.py\b.{0,20}line \d", before[name])
        assert str(exported.folder).encode() not in before[name]
    assert before["model.safetensors"] == (exported.folder / "data/train_full/model.safetensors").read_bytes()


def test_model_json_holds_what_is_needed(exported: Project, about: dict[str, object]) -> None:
    metrics = json.loads((exported.folder / "data/evaluate/metrics.json").read_text(encoding="utf-8"))
    assert about["task"] == {"name": "single_label", "classes": ["blue", "green", "red"]}
    assert about["metrics"] == metrics
    assert about["preprocessing"] == {
        "upright": "EXIF orientation applied, transparent on white, RGB",
        "resize": {"size_px": 48, "jpeg_quality": 95, "interpolation": "bilinear"},
        "centre_crop": {"share_of_shorter_side": 1.0},
        "square": {"size_px": 32, "interpolation": "bicubic"},
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
    }
    data, onnx_about, prediction = (about[key] for key in ("data", "onnx", "prediction"))
    assert isinstance(data, dict)
    assert isinstance(onnx_about, dict)
    assert isinstance(prediction, dict)
    assert (data["n_train"], data["n_valid"]) == (27, 9)
    assert sum(counts["train"] for counts in data["pictures"].values()) == 27
    assert onnx_about["largest_difference"]["n_pictures"] == 9
    assert onnx_about["largest_difference"]["probability"] < 1e-5
    assert (prediction["n_aug"], prediction["batch_size"], prediction["seed"]) == (2, 8, 42)
    assert set(about["versions"]) == {"torch", "timm", "pillow", "onnx"}  # type: ignore[call-overload]


def test_the_card_is_front_matter_and_figures(exported: Project, about: dict[str, object]) -> None:
    _, front, text = (exported.folder / "data/export/README.md").read_text(encoding="utf-8").split("---\n", 2)
    facts = YAML(typ="safe").load(front)
    assert facts["license"] == "cc-by-nc-sa-4.0"
    assert facts["datasets"] == ["elpv"]
    result = facts["model-index"][0]["results"][0]
    assert {one["name"]: one["value"] for one in result["metrics"]} == about["metrics"]
    assert result["dataset"]["args"] == {"n": 9}
    for words in ("| blue |", "cc-by-nc-sa-4.0, which binds", "## Limits", "on the 9 validation pictures"):
        assert words in text


def test_a_class_does_not_spoil_the_card(about: dict[str, object]) -> None:
    counts = {"a|b": {"train": 1, "valid": 1}, "<script>": {"train": 1, "valid": 1}}
    data = {**about["data"], "pictures": counts, "name": "no: 1 #\n---", "license": "no"}  # type: ignore[dict-item]
    said = card({**about, "data": data})
    assert "| a\\|b | 1 | 1 |" in said
    assert "<script>" not in said
    facts = YAML(typ="safe")
    facts.version = (1, 1)  # as Hugging Face reads it: `no` would be false
    front = facts.load(said.split("\n---\n")[0])
    assert (front["datasets"], front["license"]) == (["no: 1 #\n---"], "no")


@pytest.mark.parametrize(
    ("kept", "confidence", "words", "not_words"),
    [
        (0, 0.6, ["a newly trained head on", "only the head was trained"], ["fine-tuned on", "too high", "too low"]),
        (
            3,
            0.9,
            ["fine-tuned on", "those after epoch\n3.", "its probabilities are too high on average"],
            ["only the head was trained"],
        ),
        (3, 0.3, ["its probabilities are too low on average"], ["too high"]),
    ],
)
def test_the_card_says_what_learned_and_concludes_nothing_from_noise(
    about: dict[str, object], kept: int, confidence: float, words: list[str], not_words: list[str]
) -> None:
    """Of 100 pictures 0.6 right: two standard errors are 0.098."""
    said = card(
        {
            **about,
            "metrics": {"accuracy": 0.6 if kept else 0.55},
            "data": {**about["data"], "n_valid": 100},  # type: ignore[dict-item]
            "training": {**about["training"], "kept_epoch": kept},  # type: ignore[dict-item]
            "confidence": {"mean_probability_of_class_named": confidence},
        }
    )
    assert all(word in said for word in words)
    assert not any(word in said for word in not_words)


def test_the_datas_hash_is_of_contents_and_labels() -> None:
    def rows(*pairs: tuple[str, str]) -> Rows:
        return Rows([f"name{n}" for n, _ in enumerate(pairs)], [label for _, label in pairs], [sha for sha, _ in pairs])

    one, two = ("aa", "cat"), ("bb", "dog")
    assert data_sha256(rows(one, two)) == data_sha256(rows(two), rows(one))
    assert data_sha256(rows(one, two)) != data_sha256(rows(one, ("bb", "cat")))


def test_another_licence_reruns_export_alone(exported: Project, tmp_path: Path) -> None:
    try:
        exported.params({"export.data_license": "cc0-1.0"})
        assert exported.repro("export") == ["export"]
        assert 'license: "cc0-1.0"\n' in (exported.folder / "data/export/README.md").read_text(encoding="utf-8")
    finally:
        exported.params({"export.data_license": "cc-by-nc-sa-4.0"})
        assert exported.repro("export") == []


def test_the_registry_knows_it(exported: Project, tmp_path: Path) -> None:
    exported.run("git", "add", "-A")
    exported.run("git", "commit", "-qm", "exported")
    exported.run("git", "tag", "-a", "-m", "first", "classifier@v1.0.0")  # what a registry's version is
    exported.run("dvc", "artifacts", "get", str(exported.folder), "classifier", "-o", str(tmp_path / "got"))
    got = tmp_path / "got"
    found = [str(path.relative_to(got)) for path in got.rglob("*") if path.is_file()]
    assert sorted(name for name in found if not name.startswith(".")) == FILES
    onnx.checker.check_model(onnx.load(got / "model.onnx"))
