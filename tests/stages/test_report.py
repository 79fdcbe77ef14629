"""The page that a run leaves: whole in one file, escaped, the same bytes but for its times."""

import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from jinja2 import Environment, StrictUndefined
from markupsafe import escape

from stages.reporting.results.galleries import Shown
from stages.reporting.results.page import TEMPLATE, flatten
from tests.conftest import REPORT, Project

EVIL = '<script>alert("1")</script>'
TIME = re.compile(r'<section id="time">.*?</section>', re.DOTALL)


@pytest.fixture(scope="module")
def reported(reproduced: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """With a hostile label, a picture that is none and a double."""
    folder = tmp_path_factory.mktemp("reported") / "project"
    shutil.copytree(reproduced.folder, folder, symlinks=True)
    project = Project(folder, reproduced.shim)
    labels = pd.read_csv(folder / "pictures/labels.csv", dtype=str)
    labels.loc[labels["label"] == labels["label"].min(), "label"] = EVIL
    first = labels[labels["label"] == EVIL].iloc[[0]]
    pd.concat([labels, first.assign(id="dup")]).to_csv(folder / "pictures/labels.csv", index=False)
    shutil.copy(folder / f"pictures/train/{first['id'].item()}.jpg", folder / "pictures/train/dup.jpg")
    (folder / "pictures/train/bad&.jpg").write_text("<html>", encoding="utf-8")
    project.params({"ingest.max_rejected_pct": 20})
    project.repro("report")
    return project


def page(project: Project) -> str:
    return (project.folder / REPORT).read_text(encoding="utf-8")


def test_what_comes_from_the_data_is_escaped(reported: Project) -> None:
    html = page(reported)
    assert "<script" not in html
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;" in html
    assert "bad&amp;.jpg" in html


def test_the_locale_changes_nothing(reported: Project) -> None:
    """Not even one of ASCII alone: dashes, the minus signs of axes, labels."""
    before = page(reported)
    ascii_alone = ["LC_ALL=C", "PYTHONUTF8=0", "PYTHONCOERCECLOCALE=0"]
    reported.run("env", *ascii_alone, sys.executable, "-m", "stages.report")
    assert TIME.sub("", page(reported)) == TIME.sub("", before)
    assert not before.isascii()


def test_a_path_of_this_machine_is_not_handed_on() -> None:
    params = {"ingest": {"path": "/home/somebody/pictures", "id_column": "id"}, "seed": 42}
    assert list(flatten(params)) == [("ingest.path", '"pictures"'), ("ingest.id_column", '"id"'), ("seed", "42")]


def test_it_asks_for_nothing(reported: Project) -> None:
    html = page(reported)
    assert "default-src 'none'" in html
    linked = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert linked
    assert all(link.startswith(("data:", "#")) for link in linked), [link for link in linked if ":" in link[:8]]
    assert not re.findall(r"@import|url\((?!#)", html)


def test_every_rejected_file_and_every_double_is_listed(reported: Project) -> None:
    html = page(reported)
    assert "<h3>Rejected: 1</h3>" in html
    rejected = pd.read_csv(reported.folder / "data/ingest/rejected.csv")
    for file, reason in zip(rejected["file"], rejected["reason"], strict=True):
        assert f'<td>{escape(file)}</td><td class="words">{escape(reason)}</td>' in html
    assert "<h3>Duplicates: 1</h3>" in html


def test_the_same_bytes_twice_but_for_the_times(reported: Project) -> None:
    before = page(reported)
    reported.run("python", "-m", "stages.report")
    assert TIME.sub("", page(reported)) == TIME.sub("", before)
    assert len(TIME.findall(before)) == 1
    assert "<td>train_full</td>" in TIME.findall(before)[0]


def test_who_has_no_receipts_is_told_so(reported: Project, tmp_path: Path) -> None:
    receipts = reported.folder / ".unfreeze/receipts"
    receipts.rename(tmp_path / "receipts")
    reported.run("python", "-m", "stages.report")
    assert "No stage has run in this clone" in page(reported)
    shutil.rmtree(receipts)
    (tmp_path / "receipts").rename(receipts)


def test_figures_are_those_of_evaluate(reported: Project) -> None:
    html, metrics = page(reported), reported.folder / "data/evaluate/metrics.json"
    said = float(re.search(r'"accuracy_tta": ([\d.]+)', metrics.read_text(encoding="utf-8"))[1])  # type: ignore[index]
    assert f"<strong>{100 * said:.1f} %</strong> of" in html
    for step in ("head", "augment", "full 32 px", "full 40 px", "TTA"):
        assert f"<td>{step}</td>" in html


def test_wrong_ones_have_a_heat_and_right_ones_have_none(reported: Project) -> None:
    part = page(reported).split('id="pictures"')[1].split('id="data"')[0]
    figures = re.findall(r"<figure>.*?</figure>", part, re.DOTALL)
    assert figures
    for figure in figures:
        without = figure.count("Grad-CAM is empty")
        assert figure.count("<img") + without == (2 if 'class="wrong"' in figure else 1)


def test_a_param_that_changes_no_picture_makes_the_page_anew_and_trains_nothing(reported: Project) -> None:
    reported.params({"split.max_distance": 0.0011})
    assert reported.repro("report") == ["split", "report"]


def test_a_heat_without_positive_evidence_says_so() -> None:
    macros = TEMPLATE.read_text(encoding="utf-8").partition("<!doctype html>")[0]
    picture = Environment(autoescape=True, undefined=StrictUndefined).from_string(macros).module.picture  # type: ignore[attr-defined]
    wrong = Shown(id="7", actual="cat", predicted="dog", probability=0.9, thumbnail="data:,", heat=None)
    shown = [picture(one) for one in (wrong, replace(wrong, heat="data:,"), replace(wrong, actual="dog"))]
    assert ["Grad-CAM is empty" in one for one in shown] == [True, False, False]


def test_it_is_written_on_the_cpu_also_for_a_precision_of_gpus_alone(reported: Project, tmp_path: Path) -> None:
    """A training on a GPU in float16, then the report, which runs on the CPU."""
    params = reported.folder / "params.yaml"
    shutil.copyfile(params, tmp_path / "params.yaml")
    reported.params({"device.precision": "float16"})
    said = reported.run("python", "-m", "stages.report").stdout
    assert "device: cpu (" in said
    assert "precision: float16" not in said
    shutil.copyfile(tmp_path / "params.yaml", params)
