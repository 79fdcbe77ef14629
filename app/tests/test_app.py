"""A picture dropped gives the class that training would say; anything else gives a message."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.tests.conftest import ROOT, Open, Served
from app.tests.pages import Watched


def drop(watched: Watched, path: Path) -> str:
    """Drops a file on the page; returns what the page then says about the file."""
    watched.page.set_input_files("#drop input[type=file]", path)
    return answer(watched, path)


def answer(watched: Watched, path: Path) -> str:
    line = watched.page.locator("#message", has_text=path.name)
    line.wait_for()
    answer_text: str = line.inner_text()
    return answer_text


def shown(watched: Watched, name: str) -> Image.Image:
    """Returns the pixels of a picture on the page."""
    picture = watched.page.locator(f"#{name} img")
    picture.wait_for()
    data = watched.page.request.get(picture.get_attribute("src")).body()
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.fixture
def picture(project: Path) -> tuple[Path, str, float]:
    """Returns a validation picture, and the class that the pipeline predicted with torch, with its probability."""
    predictions = json.loads((project / "said.json").read_text(encoding="utf-8"))
    best = max(predictions, key=lambda one: max(one["said"].values()))
    name = max(best["said"], key=best["said"].get)
    return project / "pictures/train" / best["file"], name, best["said"][name]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
@pytest.mark.parametrize("width_px", [1400, 400])
def test_a_picture_gives_the_class_that_training_says(
    open_page: Open, served: Served, picture: tuple[Path, str, float], width_px: int, color_scheme: str
) -> None:
    path, name, probability = picture
    watched = open_page(served.url, width_px, color_scheme)
    assert drop(watched, path) == path.name
    _, title, first, percent, *_ = watched.page.locator("#classes").inner_text().split("\n")
    assert title == first == name  # a label that is HTML stays text
    assert abs(int(percent.rstrip("%")) / 100 - probability) < 0.03  # bfloat16 there, float32 here
    square, heat = shown(watched, "square"), shown(watched, "heat")
    assert square.size == heat.size == (48, 48)
    assert np.abs(np.asarray(square, int) - np.asarray(heat, int)).max() > 50
    assert watched.check() == []


def test_a_picture_dropped_from_the_desktop(open_page: Open, served: Served, picture: tuple[Path, str, float]) -> None:
    watched = open_page(served.url)
    area = watched.page.locator("#drop button").first.bounding_box()
    where = {"x": area["x"] + area["width"] / 2, "y": area["y"] + area["height"] / 2}
    data = {"items": [], "files": [str(picture[0])], "dragOperationsMask": 1}
    chromium = watched.page.context.new_cdp_session(watched.page)
    for step in ("dragEnter", "dragOver", "drop"):
        chromium.send("Input.dispatchDragEvent", {"type": step, **where, "data": data})
    assert answer(watched, picture[0]) == picture[0].name


def bad(kind: str, jpeg: bytes) -> tuple[bytes, str]:
    return {
        "text": (b"no picture at all\n", "not a picture in JPEG, PNG"),
        "truncated": (jpeg[: len(jpeg) // 2], "cannot be decoded"),
        "empty": (b"", "empty file"),
        "html": (b"<svg onload=alert(1)>", "not a picture in JPEG, PNG"),
    }[kind]


@pytest.mark.parametrize("kind", ["text", "truncated", "empty", "html"])
def test_what_is_no_picture_gives_its_reason(
    open_page: Open, served: Served, picture: tuple[Path, str, float], tmp_path: Path, kind: str
) -> None:
    data, reason = bad(kind, picture[0].read_bytes())
    path = tmp_path / f"{kind}.jpg"
    path.write_bytes(data)
    watched = open_page(served.url, 400)
    drop(watched, picture[0])
    answer_text = drop(watched, path)
    assert answer_text.startswith(f"{path.name} cannot be used: ")
    assert reason in answer_text
    watched.page.locator("#heat img").wait_for(state="detached")  # the last picture's result is gone
    assert watched.check() == []
    assert drop(watched, picture[0]) == picture[0].name


def test_100_mb_give_a_message(open_page: Open, served: Served, tmp_path: Path) -> None:
    path = tmp_path / "large.jpg"
    with path.open("wb") as file:
        file.truncate(100_000_000)
    watched = open_page(served.url, 400)
    watched.page.set_input_files("#drop input[type=file]", path)
    toast = watched.page.locator(".toast-body")
    toast.wait_for()
    assert 'exceed the maximum allowed size of 20.0 Mb: "large.jpg"' in toast.inner_text().replace("MB", "Mb")
    assert watched.check() == []


def test_a_turned_picture_is_upright_and_of_a_moving_one_the_first_is_taken(
    open_page: Open, served: Served, picture: tuple[Path, str, float], tmp_path: Path
) -> None:
    upright = Image.open(picture[0]).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.save(tmp_path / "upright.png")
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    first, other = upright.quantize(), Image.new("L", upright.size)
    first.save(tmp_path / "first.gif")
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[other])
    watched = open_page(served.url)
    pixels: dict[str, Any] = {}
    for name in ("upright.png", "turned.png", "first.gif", "moving.gif"):
        assert drop(watched, tmp_path / name) == name
        pixels[name] = np.asarray(shown(watched, "square"))
    np.testing.assert_array_equal(pixels["upright.png"], pixels["turned.png"])
    np.testing.assert_array_equal(pixels["first.gif"], pixels["moving.gif"])
    assert (pixels["upright.png"] != pixels["upright.png"].transpose(1, 0, 2)).any()


def test_without_an_export_or_a_port_it_says_what_to_do(served: Served, project: Path, tmp_path: Path) -> None:
    def says(*arguments: str) -> str:
        command = [sys.executable, "-m", "app", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8")
        assert done.returncode == 1
        return done.stderr.strip()

    way_out = "run `dvc repro export`, which makes model.onnx and model.json"
    assert says("--model", str(tmp_path)) == f"app: no {tmp_path / 'model.json'}: {way_out}"
    for name in ("model.onnx", "model.json"):
        shutil.copyfile(project / "data/export" / name, tmp_path / name)
    about = json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))
    one = json.dumps(about | {"task": about["task"] | {"classes": ["a"]}})
    (tmp_path / "model.json").write_text(one, encoding="utf-8")
    no_pair = f"app: {tmp_path}: model.onnx has 3 classes, but model.json has 1: {way_out}"
    assert says("--model", str(tmp_path)) == no_pair
    (tmp_path / "model.json").write_text(json.dumps(about | {"task": {"name": "regression"}}), encoding="utf-8")
    other = f"app: {tmp_path}: the task of the model is regression, but this page supports only single_label: {way_out}"
    assert says("--model", str(tmp_path)) == other
    (tmp_path / "model.onnx").write_bytes(b"")
    assert says("--model", str(tmp_path)).startswith(f"app: {tmp_path}: ")
    taken = "app: port 7869 is in use: stop the program that uses it, or choose another port with --port"
    assert says("--model", str(project / "data/export"), "--port", "7869") == taken
