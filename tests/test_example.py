"""The example runs outside the repository, on onnxruntime, NumPy and Pillow alone."""

import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT, Project

# Their own modules and what onnxruntime needs; torch, timm and pandas lie beside them and must not be asked for.
REFUSE = """
import runpy, sys
for name in ("torch", "timm", "pandas", "onnx", "stages", "torchvision", "pydantic", "jinja2"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_example_names_the_classes_that_predict_names(exported: Project, tmp_path: Path) -> None:
    pictures = sorted((exported.folder / "pictures/train").glob("*.jpg"))
    example, export = ROOT / "examples/classify.py", exported.folder / "data/export"
    assert (export / "classify.py").read_bytes() == example.read_bytes()
    (tmp_path / "broken.jpg").write_bytes(pictures[0].read_bytes()[:300])
    command = [
        sys.executable,
        "-I",
        "-c",
        REFUSE,
        "classify.py",
        ".",
        str(tmp_path / "broken.jpg"),
        *map(str, pictures),
    ]
    done = subprocess.run(command, cwd=export, capture_output=True, encoding="utf-8", check=True)
    said = done.stdout
    assert re.fullmatch(r".*broken\.jpg\tnot read: .*[Tt]runcated.*\n", done.stderr)
    rows = pd.DataFrame([line.split("\t") for line in said.splitlines()], columns=["file", "predicted", "probability"])
    out = str(tmp_path / "said.csv")
    exported.run("python", "-m", "stages.predict", "data/export", *map(str, pictures), "--out", out)
    expected = pd.read_csv(out)
    assert rows["file"].tolist() == expected["file"].tolist()
    assert (rows["predicted"] == expected["predicted"]).mean() > 0.9
    close = (rows["probability"].astype(float) - expected["probability"]).abs()
    assert close.mean() == pytest.approx(0, abs=0.05)
