"""An overlay colours regions with heat, and leaves the other pixels of the picture unchanged."""

import subprocess
import sys

import numpy as np
from PIL import Image

from stages.reporting.results.overlay import overlay


def test_an_overlay_changes_only_regions_with_heat() -> None:
    heat = np.zeros((8, 8), np.float32)
    heat[:, :3] = 1
    result = np.asarray(overlay(Image.new("RGB", (64, 64), (200, 200, 200)), heat))
    assert (result[:, 40:] == 200).all()
    assert (result[:, :16] != 200).any(axis=2).all()
    red, green, blue = result[:, :16].reshape(-1, 3).mean(0)
    assert red > 1.5 * max(green, blue)


def test_what_the_app_takes_from_the_stages_needs_pillow_and_numpy_alone() -> None:
    names = "{'torch', 'pydantic', 'ruamel'}"
    imports = "stages.reporting.results.overlay, stages.vision.files.resized"
    code = f"import sys, {imports}; print({names} & {{*sys.modules}})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True).stdout
    assert result == "set()\n"
