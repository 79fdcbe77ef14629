"""The bench's programs run, and the README and RESULTS.md show what they wrote."""

import json
import subprocess
import sys

import numpy as np
import pytest

from bench.__main__ import RESULTS
from bench.reruns import add
from bench.tables import END, shown
from tests.conftest import ROOT, Project

ONLY = """
import runpy, sys
class Missing:
    def find_spec(self, name, *_):
        if name.partition(".")[0] in ("dvc", "sklearn", "matplotlib", "prefect"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_gpu_needs_neither_dvc_nor_prefect_nor_what_draws() -> None:
    arguments = ["--pictures", "16", "--batch-size", "8", "--size-px", "32", "--rounds", "1", "test_efficientnet"]
    command = [sys.executable, "-c", ONLY, "bench/gpu.py", *arguments]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, encoding="utf-8").stdout
    figures = json.loads(said)
    assert (figures["backbone"], figures["n"]) == ("test_efficientnet", 16)
    assert figures["train_full / forward_backward"] > 0
    assert figures["precompute / forward"] > 0


@pytest.mark.parametrize("arguments", [["--batch-size", "1"], ["no_such_model"]])
def test_gpu_refuses_what_makes_no_sense_in_one_line(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, "bench/gpu.py", *arguments], cwd=ROOT, capture_output=True, encoding="utf-8")
    assert done.returncode == 2
    assert "error: " in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_results_are_shown() -> None:
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    for path, begin, tables in shown(results):
        assert path.read_text(encoding="utf-8").split(begin)[1].split(END)[0] == tables


def test_added_pictures_are_new_and_labelled(project: Project) -> None:
    pictures = project.folder / "pictures"
    before = (pictures / "labels.csv").read_text(encoding="utf-8")
    add(pictures, 3, np.random.default_rng(0))
    assert (pictures / "labels.csv").read_text(encoding="utf-8").startswith(before)
    project.repro("precompute")
    receipt = json.loads((project.folder / ".unfreeze/receipts/precompute.json").read_text(encoding="utf-8"))
    assert receipt["computed"] == 3
    add(pictures, 36, np.random.default_rng(1))  # some of them from the same source as before
    new = [path.read_bytes() for path in (pictures / "train").glob("new*.png")]
    assert len(set(new)) == len(new) == 39
