"""What is hot is coloured, what is cold stays the picture's."""

import subprocess
import sys

import numpy as np
from PIL import Image

from stages.reporting.results.overlay import overlay


def test_an_overlay_changes_what_is_hot_alone() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[:, :3] = 1
    said = np.asarray(overlay(Image.new("RGB", (64, 64), (200, 200, 200)), heat))
    assert (said[:, 40:] == 200).all()
    assert (said[:, :16] != 200).any(axis=2).all()
    red, green, blue = said[:, :16].reshape(-1, 3).mean(0)
    assert red > 1.5 * max(green, blue)


def test_what_the_app_takes_from_the_stages_needs_pillow_and_numpy_alone() -> None:
    names = "{'torch', 'pydantic', 'ruamel'}"
    imports = "stages.reporting.results.overlay, stages.vision.files.resized"
    code = f"import sys, {imports}; print({names} & {{*sys.modules}})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert said == "set()\n"
