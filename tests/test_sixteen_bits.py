"""Detectors give 12 bits in files of 16: ingest says so and decides, resize and prediction do the same."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image
from ruamel.yaml import YAML

from stages import ingest, predict, resize
from stages.dataset.reading.input_files import InputFile
from stages.models.networks.backbone import Body
from stages.models.networks.head import Head, HeadConfig
from stages.models.networks.network import Network, load_network, save_network
from stages.runtime.errors import StageError
from stages.runtime.params import load
from stages.store.shards import Shards
from stages.tasks.single_label import SingleLabel
from stages.vision.batches.preprocessing import ResizeParams, Resizing, resizing
from stages.vision.files.resized import resized
from tests.models.test_network import BACKBONE
from tests.test_bad_pictures import JPEG
from tests.vision.test_metadata import DAMAGED_EXIF, chunk, png

SIDE = 64


def picture(number: int, most: int = 4095) -> Image.Image:
    """Values from 0 to `most`, as many as there are pixels; another picture for each number."""
    values = np.linspace(0, most, SIDE * SIDE).astype(np.uint16)
    return Image.fromarray(np.roll(values, number * 700).reshape(SIDE, SIDE))


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """A project of two classes, three pictures each, of 12 bits."""

    def make(depth: object, most: int = 4095) -> None:
        values = YAML(typ="safe").load((Path(__file__).parent.parent / "params.yaml").read_text(encoding="utf-8"))
        values["ingest"] |= {"path": "pictures", "layout": "folders", "depth": depth}
        values["resize"]["size_px"] = SIDE
        monkeypatch.chdir(tmp_path)
        Path("pictures/valid").mkdir(parents=True)
        with Path("params.yaml").open("w", encoding="utf-8") as file:
            YAML().dump(values, file)
        for number in range(6):
            path = Path(f"pictures/train/{'ab'[number % 2]}/{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            picture(number, most).save(path)

    return make


def depth_of() -> Any:
    return json.loads(Path("data/ingest/depth.json").read_text(encoding="utf-8"))


def kept() -> dict[str, Any]:
    """The resized pictures by sha256, as arrays."""
    shards = Shards(Path("data/resize/shards"))
    return {sha: np.asarray(Image.open(io.BytesIO(shards.blob(sha)))) for sha in shards.sha256s()}


@pytest.mark.parametrize(
    ("depth", "window", "levels", "said"),
    [
        ("used", [0, 4095], 256, "ingest.depth is used: 0 is black and 4,095 white"),
        (12, [0, 4095], 256, "ingest.depth is 12: 0 is black and 4,095 white"),
        ([0, 4095], [0, 4095], 256, "ingest.depth is [0, 4095]: 0 is black and 4,095 white"),
        ("full", None, 16, "WARNING: half of them keep 16 of 256 grey levels or fewer: most of their values lie "
                           "between 4 and 4,091. Set ingest.depth to used"),
    ],
)  # fmt: skip
def test_one_decision_for_the_set(
    prepare: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    depth: object,
    window: object,
    levels: int,
    said: str,
) -> None:
    prepare(depth)
    ingest.main()
    assert depth_of() == {"depth": window}
    assert said in capsys.readouterr().out
    resize.main()
    for pixels in kept().values():  # JPEG adds a level here and there
        assert pixels.shape == (SIDE, SIDE)
        assert int(pixels.max()) == pytest.approx(levels - 1, abs=6)


def test_prediction_does_what_resize_did(prepare: Callable[..., None], tmp_path: Path) -> None:
    prepare("used")
    ingest.main()
    resize.main()
    how = resizing(load("resize", ResizeParams), Path("data/ingest/depth.json"))
    head = Head(HeadConfig(n_features=512, hidden=8, dropout=(0.25, 0.5), task=SingleLabel.from_labels(["a", "b"])))
    save_network(Network(BACKBONE, how, Body(BACKBONE.name), head, 32), tmp_path / "model.safetensors")
    network = load_network(tmp_path / "model.safetensors")
    assert network.resize == Resizing(size_px=SIDE, jpeg_quality=95, depth=(0, 4095))
    shards = Shards(Path("data/resize/shards"))
    for path in Path("pictures").rglob("*.png"):
        opened = predict.open_picture(10**6, network.resize, InputFile(str(path), path.name))
        assert opened.data == shards.blob(opened.sha256)
        wants = SimpleNamespace(
            **json.loads(json.dumps(network.resize.model_dump()))
        )  # model.json, as the app reads it
        assert resized(path.read_bytes(), cast("Resizing", wants), 10**6) == opened.data


def test_pictures_of_8_bits_leave_no_trace(prepare: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    prepare("used")
    for path in Path("pictures").rglob("*.png"):
        Image.open(path).convert("I").point(lambda value: value / 16).convert("L").save(path)
    ingest.main()
    assert depth_of() == {"depth": None}
    assert "8 bits" not in capsys.readouterr().out
    params = resizing(load("resize", ResizeParams), Path("data/ingest/depth.json"))
    assert params.model_dump_json() == '{"size_px":64,"jpeg_quality":95}'
    assert resized(JPEG, cast("Resizing", SimpleNamespace(size_px=48, jpeg_quality=95)), 10**6)


def test_a_further_picture_within_the_coarse_range_changes_nothing(prepare: Callable[..., None]) -> None:
    prepare("used", most=3900)
    ingest.main()
    picture(7, most=4000).save("pictures/train/a/more.png")
    before = depth_of()
    ingest.main()
    assert depth_of() == before == {"depth": [0, 4095]}


@pytest.mark.parametrize("depth", ["all", 7, 17, True, 12.0, [5], [9, 9], [0, 65536], None])
def test_what_depth_cannot_be(prepare: Callable[..., None], depth: object) -> None:
    prepare(depth)
    with pytest.raises(StageError, match=r"params.yaml: `ingest.depth` is .*full.*used.*") as caught:
        ingest.main()
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


def test_unreadable_metadata_are_counted(prepare: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    prepare("used")
    for number in range(2):
        damaged = chunk(b"tEXt", f"number\0{number}".encode())
        Path(f"pictures/train/a/damaged{number}.png").write_bytes(png(chunk(b"eXIf", DAMAGED_EXIF[2]), damaged))
    ingest.main()
    said = capsys.readouterr().out
    assert "8 pictures, 0 rejected" in said
    assert (
        "2 pictures have metadata that cannot be read (EXIF of 2; train/a/damaged0.png is one): the pixels are used "
        "without the metadata"
    ) in said
