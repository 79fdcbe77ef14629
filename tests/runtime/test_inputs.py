"""What a stage depends on, read from dvc.yaml as DVC reads it."""

from pathlib import Path

import pytest

from stages.runtime import folders
from stages.runtime.inputs import declared_inputs, inputs_hash, inputs_snapshot

PIPELINE = """
vars:
  - nothing: ""
stages:
  ingest:
    cmd: python -m stages.ingest
    deps:
      - ${ingest.path}${nothing}
      - data/split/train.csv
    params: [seed]
    outs: [data/ingest]
"""


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    Path("params.yaml").write_text("seed: 1\ningest: {path: pictures}\n", encoding="utf-8")
    for name in (
        "pictures/a.jpg",
        "pictures/__pycache__/a.pyc",
        "data/split/train.csv",
        "data/folds/1/split/train.csv",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(name, encoding="utf-8")


def test_variables_and_params_are_put_in_and_paths_are_those_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert declared_inputs("ingest") == (["seed"], [Path("pictures"), Path("data/split/train.csv")])
    monkeypatch.setattr(folders, "_run", folders.Run(Path("data/folds/1")))
    assert declared_inputs("ingest")[1] == [Path("pictures"), Path("data/folds/1/split/train.csv")]


def test_content_params_and_machine_change_the_hash_and_compiled_code_does_not() -> None:
    first, snapshot = inputs_hash("ingest", {"chip": "a"}), inputs_snapshot("ingest")
    Path("pictures/__pycache__/a.pyc").write_text("compiled again", encoding="utf-8")
    assert inputs_hash("ingest", {"chip": "a"}) == first
    assert inputs_snapshot("ingest") == snapshot
    hashes = {first, inputs_hash("ingest", {"chip": "b"})}
    Path("pictures/a.jpg").write_text("another", encoding="utf-8")
    assert inputs_snapshot("ingest") != snapshot
    hashes.add(inputs_hash("ingest", {"chip": "a"}))
    Path("params.yaml").write_text("seed: 2\ningest: {path: pictures}\n", encoding="utf-8")
    hashes.add(inputs_hash("ingest", {"chip": "a"}))
    assert len(hashes) == 4
