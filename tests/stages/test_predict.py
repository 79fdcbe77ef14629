"""predict: the probabilities of the stage tta to the bit, from files, folders and lists, whatever is beside them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import stages.predict as predict_stage
from stages.runtime.errors import StageError
from tests.conftest import ROOT, Project, draw_pictures

MODEL = "data/train_full/model.safetensors"


def predict(project: Project, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return project.run("python", "-m", "stages.predict", *arguments, check=check)


def table(project: Project, tmp_path: Path, *arguments: str) -> pd.DataFrame:
    """float32, as it was written."""
    predict(project, *arguments, "--out", str(tmp_path / "said.parquet"))
    return pd.read_parquet(tmp_path / "said.parquet")


def each(said: pd.DataFrame) -> dict[str, bytes]:
    """File name to the bytes of its probabilities."""
    values = said.filter(like="probability:").to_numpy(np.float32)
    return {Path(file).name: row.tobytes() for file, row in zip(said["file"], values, strict=True)}


def plain(project: Project, part: str) -> dict[str, bytes]:
    """The same of the stage tta."""
    rows = pd.read_parquet(project.folder / f"data/tta/{part}.parquet")
    values = rows.filter(like="plain:").to_numpy()
    return {f"{id_}.jpg": row.tobytes() for id_, row in zip(rows["id"], values, strict=True)}


def test_it_is_what_tta_says_to_the_bit_whatever_is_beside_it(reproduced: Project, tmp_path: Path) -> None:
    """A folder, which has the training's pictures too; files in another order; one alone; a list."""
    valid = plain(reproduced, "valid")
    files = [f"pictures/train/{name}" for name in valid]
    folder = table(reproduced, tmp_path, MODEL, "pictures")
    assert len(folder) == 40
    assert each(folder).items() >= (valid | plain(reproduced, "test")).items()
    assert each(table(reproduced, tmp_path, MODEL, *reversed(files))) == valid
    assert each(table(reproduced, tmp_path, MODEL, files[3])) == {Path(files[3]).name: valid[Path(files[3]).name]}
    (tmp_path / "list.txt").write_text("\n".join(files) + "\n", encoding="utf-8")
    listed = table(reproduced, tmp_path, MODEL, f"@{tmp_path / 'list.txt'}")
    assert listed["file"].tolist() == files
    assert each(listed) == valid


def test_chunks_make_no_difference(exported: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do they with TTA, whose draws a picture's own bytes decide."""
    monkeypatch.chdir(exported.folder)
    said = {}
    for chunk, n_aug in ((3, 2), (512, 2), (512, 1)):
        out = tmp_path / f"{chunk}-{n_aug}.csv"
        monkeypatch.setattr("stages.predict.CHUNK", chunk)
        monkeypatch.setattr("sys.argv", ["predict", "data/export", "pictures", "--tta", str(n_aug), "--out", str(out)])
        predict_stage.main()
        said[chunk, n_aug] = out.read_bytes()
    assert said[3, 2] == said[512, 2] != said[512, 1]


def test_csv_stdout_and_parquet_hold_the_same(reproduced: Project, tmp_path: Path) -> None:
    done = predict(reproduced, MODEL, "pictures/test")
    assert re.fullmatch(r"device: .*\npredict: 4 predicted, 0 rejected\n", done.stderr)
    said = table(reproduced, tmp_path, MODEL, "pictures/test")
    predict(reproduced, MODEL, "pictures/test", "--out", str(tmp_path / "said.csv"))
    assert (tmp_path / "said.csv").read_text(encoding="utf-8") == done.stdout
    read = pd.read_csv(tmp_path / "said.csv").astype({name: np.float32 for name in said if "probability" in str(name)})
    pd.testing.assert_frame_equal(read, said, check_exact=True)
    classes = ["blue", "green", "red"]
    assert list(said.columns) == ["file", "predicted", "probability", *(f"probability:{name}" for name in classes)]
    values = said.filter(like="probability:").to_numpy()
    assert said["predicted"].tolist() == [classes[place] for place in values.argmax(axis=1)]
    assert (said["probability"] == values.max(axis=1)).all()


def test_bad_pictures_are_listed_and_the_others_predicted(reproduced: Project, tmp_path: Path) -> None:
    folder = draw_pictures(tmp_path / "some", n_each=1, test=0) / "train"
    (folder / "cut.jpg").write_bytes((folder / "red00.jpg").read_bytes()[:200])
    (folder / "empty.png").touch()
    (folder / "notes.txt").write_text("no picture", encoding="utf-8")
    Image.new("L", (1300, 900)).save(folder / "large.png")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    limit = ["--max-megapixels", "1"]
    out = str(tmp_path / "said.csv")
    long = str(tmp_path / f"{'x' * 300}.jpg")
    done = predict(reproduced, MODEL, str(folder), str(tmp_path / "gone.jpg"), long, *limit, "--out", out)
    assert [Path(file).name for file in pd.read_csv(out)["file"]] == ["blue00.jpg", "green00.jpg", "red00.jpg"]
    rejected = pd.read_csv(tmp_path / "said.rejected.csv").set_index("file")["reason"]
    assert [Path(file).name for file in rejected.index] == [
        "cut.jpg", "empty.png", "large.png", "loop.jpg", "notes.txt", "gone.jpg", Path(long).name,
    ]  # fmt: skip
    assert rejected.iloc[1] == "empty file"
    assert rejected.iloc[2] == "1300 x 900 pixels, more than --max-megapixels allows"
    assert rejected.iloc[5] == "No such file or directory"
    assert rejected.iloc[6] == "File name too long"
    device, *lines = done.stderr.splitlines()
    assert device.startswith("device: ")
    assert lines[-1] == "predict: 3 predicted, 7 rejected"
    assert [line.split(": ")[1] for line in lines[:-1]] == rejected.index.tolist()


def test_a_carriage_return_in_a_name_makes_no_row(reproduced: Project, tmp_path: Path) -> None:
    for place, name in enumerate(("a\rb.jpg", "c.jpg")):
        shutil.copyfile(reproduced.folder / f"pictures/test/t{place}.jpg", tmp_path / name)
    predict(reproduced, MODEL, str(tmp_path), "--out", str(tmp_path / "said.csv"))
    assert [Path(file).name for file in pd.read_csv(tmp_path / "said.csv")["file"]] == ["a\ufffdb.jpg", "c.jpg"]


def test_a_submission_is_evaluates(project: Project, tmp_path: Path) -> None:
    project.params({"tta.n_aug": 0})
    project.repro("evaluate")
    predict(project, MODEL, "pictures/test", "--submission", str(tmp_path / "submission.csv"))
    assert (tmp_path / "submission.csv").read_bytes() == (project.folder / "data/evaluate/submission.csv").read_bytes()


def test_ids_that_two_files_share_keep_their_suffixes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stages.dataset.reading.input_files import input_files

    for name in ("a/1.jpg", "a/1.png", "a-1.jpg", "a/.hidden.jpg", "b/e\u0301.jpg", "b/e\u0301.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert input_files(["."]) == [
        ("a-1.jpg", "a-1"), ("a/1.jpg", "a/1.jpg"), ("a/1.png", "a/1.png"),
        ("b/e\u0301.jpg", "b/\u00e9"), ("b/e\u0301.txt", "b/\u00e9.txt"),
    ]  # fmt: skip
    assert input_files(["a/1.jpg"]) == [("a/1.jpg", "1")]
    assert input_files(["a/1.jpg", "a/1.png"]) == [("a/1.jpg", "1.jpg"), ("a/1.png", "1.png")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["data", "pictures"], "no model data/model.safetensors: name data/export, or a"),
        (["body.safetensors", "pictures"], "body.safetensors is not a model of the current train_full or export"),
        (
            [MODEL, "pictures", "--tta", "2"],
            "--tta needs model.json, which has the augmentations",
        ),
        ([MODEL, "params.yaml", "dvc.yaml"], "none of 2 pictures could be used: nothing was written"),
        ([MODEL, "@none.txt"], "cannot read the list none.txt"),
        (
            [MODEL, "pictures", "--out", "said.txt"],
            "--out said.txt: it must be a file whose name ends in .csv or .parquet",
        ),
        ([MODEL, "pictures", "--submission", "s.parquet"], "s.parquet: it must be a file whose name ends in .csv"),
        (
            [MODEL, "pictures", "--out", "a.csv", "--submission", "a.rejected.csv"],
            "is a file that --out a.csv writes too",
        ),
        (
            [MODEL, "pictures/test/t0.jpg", "pictures/test/t0.jpg", "--submission", "s.csv"],
            "1 ids occur more than once",
        ),
        ([MODEL, "@data/tta/valid.parquet"], "valid.parquet contains zero bytes: expected UTF-8 text"),
        ([MODEL, "pictures", "--out", "params.yaml/said.csv"], "params.yaml/said.csv: its folder cannot be created"),
        ([MODEL, ""], "an empty name among the pictures: is a variable of the shell not set?"),
    ],
)
def test_what_a_user_can_mend_is_one_line(reproduced: Project, arguments: list[str], line: str) -> None:
    done = predict(reproduced, *arguments, check=False)
    assert done.returncode == 1
    assert line in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def change(model: Path, to: Path, **network: object) -> str:
    """The model file with other facts in its metadata."""
    with safe_open(model, "pt") as file:
        facts = json.loads(file.metadata()["network"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    for key, value in network.items():
        part, _, name = key.partition("__")
        (facts[part] if name else facts)[name or part] = value
    save_file(tensors, to, metadata={"network": json.dumps(facts)})
    return str(to)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"backbone__name": "hf-hub:evil/model"}, "hf-hub:evil/model is not a model of timm"),
        ({"backbone__name": "local-dir:/evil"}, "is not a model of timm"),
        ({"backbone__name": "resnet18"}, "Error\\(s\\) in loading state_dict"),
        ({"backbone__mean": [0.5]}, "at least 3 items"),
        ({"backbone__crop_pct": 0.0}, "greater than 0"),
        ({"size_px": -3}, "greater than or equal to 32"),
        ({"head__task": {"name": "single_label", "classes": ["red", "red", "green"]}}, "a class occurs twice"),
    ],
)
def test_a_hostile_model_file_is_refused(
    reproduced: Project, tmp_path: Path, facts: dict[str, object], words: str
) -> None:
    model = change(reproduced.folder / MODEL, tmp_path / "model.safetensors", **facts)
    with pytest.raises(StageError, match=words):
        predict_stage.load_model(Path(model))


def test_the_export_says_the_precision_of_the_training(exported: Project) -> None:
    about = json.loads((exported.folder / "data/export/model.json").read_text(encoding="utf-8"))
    assert about["prediction"]["precision"] == "auto"
    _, prediction = predict_stage.load_model(exported.folder / "data/export")
    assert prediction is not None
    assert prediction.precision == "auto"


def test_a_model_of_float16_is_used_on_the_cpu_too(exported: Project, tmp_path: Path) -> None:
    """The CPU has no float16: `auto` takes its place."""
    model = tmp_path / "model"
    shutil.copytree(exported.folder / "data/export", model)
    about = json.loads((model / "model.json").read_text(encoding="utf-8"))
    auto = each(table(exported, tmp_path, str(model), "pictures/test"))
    about["prediction"]["precision"] = "float16"
    (model / "model.json").write_text(json.dumps(about), encoding="utf-8")
    assert each(table(exported, tmp_path, str(model), "pictures/test", "--device", "cpu")) == auto


def test_it_computes_in_the_precision_of_the_model(exported: Project, tmp_path: Path) -> None:
    """bfloat16 is slow where the hardware has none, but it is computed."""
    said = {}
    for precision in ("float32", "bfloat16"):
        model = tmp_path / precision
        shutil.copytree(exported.folder / "data/export", model)
        about = json.loads((model / "model.json").read_text(encoding="utf-8"))
        about["prediction"]["precision"] = precision
        (model / "model.json").write_text(json.dumps(about), encoding="utf-8")
        said[precision] = each(table(exported, tmp_path, str(model), "pictures/test"))
    option = ["--precision", "float32"]
    assert said["float32"] == each(table(exported, tmp_path, str(tmp_path / "bfloat16"), "pictures/test", *option))
    assert all(said["float32"][name] != said["bfloat16"][name] for name in said["float32"])


def test_nothing_half_written_stays(reproduced: Project, tmp_path: Path) -> None:
    predict(reproduced, MODEL, "params.yaml", "--out", str(tmp_path / "said.csv"), check=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_memory_grows_by_a_name_a_picture(reproduced: Project, tmp_path: Path) -> None:
    program = "import stages.predict as p; from stages.runtime.receipt import peak_mib; p.main(); print(peak_mib())"
    peaks = []
    for n in (1_000, 100_000):
        folder = tmp_path / str(n)
        folder.mkdir()
        for number in range(n):
            pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
        command = [sys.executable, "-c", program, str(reproduced.folder / MODEL), str(folder), "--out"]
        said = subprocess.run(
            [*command, tmp_path / "o.csv"], cwd=ROOT, check=True, capture_output=True, encoding="utf-8"
        )
        assert len(pd.read_csv(tmp_path / "o.csv")) == n
        peaks.append(float(said.stdout))
    print(f"\npeak MiB: {peaks}")
    assert peaks[1] < peaks[0] + 99_000 * 800 / 2**20, peaks  # a name each, and no picture
