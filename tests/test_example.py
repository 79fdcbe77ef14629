"""The example runs outside the repository, on onnxruntime, NumPy and Pillow alone."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

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
    files = contents(export)
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
    assert contents(export) == files  # what DVC keeps stays as it is
    out, options = str(tmp_path / "said.csv"), ("--precision", "float32")
    exported.run("python", "-m", "stages.predict", "data/export", *map(str, pictures), "--out", out, *options)
    expected = pd.read_csv(out)
    assert rows["file"].tolist() == expected["file"].tolist()
    assert rows["predicted"].tolist() == expected["predicted"].tolist()
    np.testing.assert_allclose(rows["probability"].astype(float), expected["probability"], atol=1e-4)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_its_preprocessing_is_the_projects_own(exported: Project) -> None:
    """Nothing is said twice: copies, but for the name of their package."""
    folder = exported.folder / "data/export/preprocessing"
    assert {path.name for path in folder.iterdir()} == {"images.py", "network_input.py", "resized.py"}
    for path in folder.iterdir():
        (source,) = (ROOT / "stages/vision").rglob(path.name)
        assert path.read_text(encoding="utf-8") == source.read_text(encoding="utf-8").replace(
            "from stages.vision.files import", "from preprocessing import"
        )
