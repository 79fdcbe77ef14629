"""Drawn pictures, a small body, and a real git and DVC repository of the project to run stages in."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from ruamel.yaml import YAML
from safetensors.torch import save_file

from tests.python_server import SHIM

ROOT = Path(__file__).parent.parent
CLASSES = ("blue", "green", "red")
BODY = "test_efficientnet"  # timm's own for tests: 0.3 million weights


def draw_picture(path: Path, label: str, seed: int) -> None:
    """A noisy picture with a square in the class's colour; sizes differ, landscape and portrait."""
    rng = np.random.default_rng([CLASSES.index(label), seed])
    height, width = rng.integers(40, 72, 2)
    pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
    pixels[8:32, 8:32, 2 - CLASSES.index(label)] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


def draw_pictures(folder: Path, n_each: int = 12, test: int = 4) -> Path:
    """csv layout: 3 classes, one grey picture among them, and an unlabelled test folder."""
    rows = ["id,label,other"]
    for label in CLASSES:
        for number in range(n_each):
            draw_picture(folder / "train" / f"{label}{number:02d}.jpg", label, number)
            rows.append(f"{label}{number:02d},{label},{'a' if number % 2 else 'b'}")
    grey = folder / "train" / "blue00.jpg"
    Image.open(grey).convert("L").save(grey)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for number in range(test):
        draw_picture(folder / "test" / f"t{number}.jpg", CLASSES[number % 3], 100 + number)
    return folder


def small_body(path: Path) -> str:
    """Random but fixed weights for BODY; returns the file's sha256."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        net = timm.create_model(BODY, num_classes=0, global_pool="")
    save_file(dict(net.state_dict()), path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Project:
    """A git and DVC repository with the project's own stages, dvc.yaml and params.yaml, made small."""

    def __init__(self, folder: Path, shim: Path | None) -> None:
        self.folder, self.shim = folder, shim

    def environment(self) -> dict[str, str]:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return os.environ | {
            "PATH": f"{self.shim}:{path}" if self.shim else path,
            "DVC_NO_ANALYTICS": "1",
            "PYTHONWARNINGS": "ignore",
        }

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, encoding="utf-8")
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} -> {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done

    def repro(self, *arguments: str) -> list[str]:
        """The stages that were executed, in order."""
        out = self.run("dvc", "repro", *arguments).stdout
        return [line.split("'")[1] for line in out.splitlines() if line.startswith("Running stage")]

    def params(self, changes: dict[str, Any]) -> None:
        """Set dotted keys of params.yaml."""
        yaml = YAML()
        path = self.folder / "params.yaml"
        content = yaml.load(path.read_text(encoding="utf-8"))
        for dotted, value in changes.items():
            *sections, key = dotted.split(".")
            section = content
            for name in sections:
                section = section[name]
            section[key] = value
        with path.open("w", encoding="utf-8") as file:
            yaml.dump(content, file)

    def md5s(self) -> dict[str, str]:
        """Of every output, as dvc.lock has them. Without the report, which tells the time."""
        lock = YAML(typ="safe").load((self.folder / "dvc.lock").read_text(encoding="utf-8"))
        outs = [out for stage in lock["stages"].values() for out in stage["outs"]]
        return {out["path"]: out["md5"] for out in outs if out["path"] != REPORT}


REPORT = "data/evaluate/report.html"
SMALL: dict[str, Any] = {
    "ingest.path": "pictures",
    "split.valid_pct": 0.25,
    "resize.size_px": 48,
    "backbone.name": BODY,
    "backbone.weights_file": "body.safetensors",
    "precompute.size_px": 32,
    "precompute.batch_size": 8,
    "transforms.kind": "side_on",
    "head.hidden": 16,
    "lr_find.n_iterations": 12,
    "lr_find.batch_size": 8,
    "train_head.n_cycles": 2,
    "train_head.cycle_len": 1,
    "train_head.cycle_mult": 1,
    "train_head.batch_size": 8,
    "augment.n_cycles": 1,
    "augment.cycle_len": 1,
    "augment.cycle_mult": 1,
    "augment.batch_size": 8,
    "unfreeze.size_px": 32,
    "unfreeze.n_iterations": 5,
    "unfreeze.batch_size": 8,
    "train_full.size_px": [32, 40],
    "train_full.lrs": [0.0, 0.0001, 0.001],
    "train_full.n_cycles": 1,
    "train_full.cycle_len": 1,
    "train_full.cycle_mult": 1,
    "train_full.batch_size": 8,
    "tta.n_aug": 2,
    "tta.batch_size": 8,
}


def copy_project(folder: Path) -> None:
    """What git tracks of the pipeline, uncommitted changes too."""
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "stages", "flows", "params.yaml", "dvc.yaml"]
        + [".dvcignore", ".gitignore", "data/dvc.yaml", "data/params.yaml", "pipelines", "examples"]
        + ["tests/__init__.py", "tests/stand_ins"],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=True,
    ).stdout.split()  # fmt: skip
    for name in tracked:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)


def start(project: Project) -> Project:
    """Git and DVC, afresh."""
    project.run("git", "init", "-q")
    project.run("git", "config", "user.email", "test@example.com")
    project.run("git", "config", "user.name", "test")
    project.run("dvc", "init", "-q")
    project.run("dvc", "config", "core.analytics", "false")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "start")
    return project


def make_project(folder: Path, shim: Path | None) -> Project:
    """The project's own stages on drawn pictures and a small body."""
    copy_project(folder)
    draw_pictures(folder / "pictures")
    project = Project(folder, shim)
    project.params(SMALL | {"backbone.weights_sha256": small_body(folder / "body.safetensors")})
    return start(project)


@pytest.fixture(scope="session")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for the front of PATH whose `python` is tests/python_server.py."""
    folder = tmp_path_factory.mktemp("shim")
    command = [sys.executable, "-m", "tests.python_server", str(folder / "socket")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, encoding="utf-8") as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        python = folder / "python"
        python.write_text(SHIM.format(python=sys.executable, socket=str(folder / "socket")), encoding="utf-8")
        python.chmod(0o755)
        yield folder
        server.kill()


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory, shim: Path) -> Project:
    """One project on which everything has been run once. Tests that change it copy it: see `project`."""
    project = make_project(tmp_path_factory.mktemp("reproduced"), shim)
    project.repro("evaluate", "lr_find")
    return project


@pytest.fixture(scope="session")
def exported(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A copy of `reproduced` with the stage export run, which takes 10 s."""
    folder = tmp_path_factory.mktemp("exported") / "project"
    shutil.copytree(reproduced.folder, folder, symlinks=True)
    project = Project(folder, reproduced.shim)
    assert project.repro("export") == ["export"]
    return project


@pytest.fixture
def project(reproduced: Project, tmp_path: Path) -> Project:
    """A copy of `reproduced` that a test may change."""
    shutil.copytree(reproduced.folder, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project", reproduced.shim)


def mounted(folder: Path, size_mib: int) -> Iterator[Path]:
    """A file system of its own; who is not allowed to mount one skips the test."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a file system here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", size_mib=2)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return draw_pictures(tmp_path / "pictures")
