"""The page of several results: what it says, that it is whole by itself, and real experiments of a real repository."""

import re
import shutil
from pathlib import Path

import pytest

from flows.compare import changed_params, changes, metrics, not_comparable, page, sign_test, steps
from flows.live import points
from flows.pages.curves import chart, short, thinned
from flows.pages.result import Result
from tests.conftest import Project

EVIL = "<script>alert(1)</script>"


def result(name: str, loss: float, **more: object) -> Result:
    fields: dict[str, object] = {
        "params": {"seed": "42", "train_head.lr": str(loss)},
        "metrics": {"accuracy_tta": 0.5, "log_loss_tta": loss},
        "steps": [{"step": "head", "accuracy": "0.5", "log_loss": str(loss)}],
        "curves": {"Loss on valid, head": [(1, loss), (2, loss / 2)]},
        "predicted": {"a": ("yes", "no"), "b": ("yes", "yes"), "c": ("no", "yes"), "d": ("no", "no")},
    }
    return Result(name, **(fields | more))  # type: ignore[arg-type]


def test_the_best_is_marked_and_differences_are_to_the_first() -> None:
    both = [result("one", 0.4), result("two", 0.3), Result("three")]
    rows = dict(metrics(both))
    assert rows["log_loss_tta"] == [("0.4000", "", False), ("0.3000", "-0.1000", True), ("", "", False)]
    assert rows["accuracy_tta"][0] == ("0.5000", "", False)  # all are the same
    better = result("two", 0.4, metrics={"accuracy_tta": 0.6, "log_loss_tta": 0.4})
    assert [is_best for *_, is_best in dict(metrics([result("one", 0.4), better]))["accuracy_tta"]] == [False, True]
    assert changed_params(both[:2]) == [("train_head.lr", ["0.4", "0.3"])]
    assert steps(both) == [("head", [("0.5", "0.4"), ("0.5", "0.3"), ("", "")])]


def test_tta_is_the_last_step_also_where_the_first_result_has_fewer() -> None:
    def rows(*names: str) -> list[dict[str, str]]:
        return [{"step": name, "accuracy": "0.5", "log_loss": "0.4"} for name in names]

    fewer = result("one", 1, steps=rows("head", "kept: epoch 0", "TTA"))
    both = [fewer, result("two", 1, steps=rows("head", "full 64 px", "TTA"))]
    assert [name for name, _ in steps(both)] == ["head", "full 64 px", "kept: epoch 0", "TTA"]
    assert dict(steps(both))["full 64 px"] == [("", ""), ("0.5", "0.4")]


def test_what_was_measured_on_other_pictures_is_no_better_and_no_worse() -> None:
    three = [
        result(name, loss, measured_on=on) for name, loss, on in (("a", 0.4, "x"), ("b", 0.1, "y"), ("c", 0.3, "x"))
    ]
    assert not_comparable(three) == ["b"]
    cells = dict(metrics(three))["log_loss_tta"]
    assert cells == [("0.4000", "", False), ("0.1000", "", False), ("0.3000", "-0.1000", True)]
    assert "<b>b</b> was measured on other pictures or labels than a" in page(three)
    assert not_comparable([result("a", 1), *three]) == []  # not known of the first


@pytest.mark.parametrize(("won", "lost", "p"), [(2, 1, 1.0), (5, 0, 0.0625), (1, 9, 22 / 1024), (0, 0, 1.0)])
def test_sign_test(won: int, lost: int, p: float) -> None:
    assert sign_test(won, lost) == pytest.approx(p)


def test_predictions_that_changed() -> None:
    predicted = {"a": ("yes", "yes"), "b": ("yes", "no"), "c": ("no", "maybe"), "d": ("no", "no"), "e": ("no", "yes")}
    assert changes(result("one", 1), result("two", 1, predicted=predicted)) == [
        ("pictures in both", 4, []),
        ("wrong before, right now", 1, ["a: no → yes"]),
        ("right before, wrong now", 1, ["b: yes → no"]),
        ("otherwise wrong", 1, ["c: yes → maybe"]),
    ]
    assert changes(result("one", 1), result("two", 1, predicted=None)) is None


def test_points_of_a_curve_lie_in_the_picture() -> None:
    drawn = chart("t", [[(0, 1), (10, 3)], [(5, 2)], []])
    assert drawn.lines == ["76,212 628,12", "344,112 360,112", ""]
    assert drawn.x_ticks == [(76.0, "0"), (628.0, "10")]
    assert len(thinned([(i, i) for i in range(10_000)])) <= 401
    assert thinned([(i, i) for i in range(10_000)])[-1] == (9999, 9999)
    assert chart("t", [[], []]).lines == ["", ""]
    assert chart("t", [[(1, 0.5)]]).x_ticks == [(352.0, "1")]  # one epoch: no 0.95 and 1.05


@pytest.mark.parametrize(
    ("value", "text"), [(0.000519, "5e-04"), (0.004671, "0.0047"), (0.97531, "0.975"), (12.345, "12.3"), (0.0, "0")]
)
def test_numbers_of_an_axis_are_short(value: float, text: str) -> None:
    assert short(value) == text


def test_names_and_labels_are_text_and_nothing_comes_from_elsewhere() -> None:
    evil = result(EVIL, 0.4, params={EVIL: EVIL}, predicted={EVIL: (EVIL, "x")}, steps=[], missing=[EVIL])
    html = page([result("one", 0.5, predicted={EVIL: (EVIL, "y")}), evil])
    assert "<script" not in html
    assert html.count("&lt;script&gt;") > 5
    assert not re.search(r"(src|href|url|@import)\s*[=(]", html)
    assert "default-src 'none'" in html
    assert page([result("one", 0.5, predicted={EVIL: (EVIL, "y")}), evil]) == html


def test_live_curves_as_a_page(project: Project) -> None:
    said = project.run("python", "-m", "flows.live", "--once").stdout
    page = project.folder / ".unfreeze/live/index.html"
    assert said == f"{page.as_uri()}\n"
    html = page.read_text(encoding="utf-8")
    assert re.findall(r"<h2>(.*)</h2>", html) == ["train_full", "augment", "train_head"]  # the last one first
    assert html.count("<polyline") == 3 * 5
    assert 'http-equiv="refresh"' in html
    assert "<script" not in html
    queued = project.folder / ".dvc/tmp/exps/tmpa1/.unfreeze/live/augment"
    shutil.copytree(project.folder / ".unfreeze/live/augment", queued)
    project.run("python", "-m", "flows.live", "--once")
    assert "<h2>queued tmpa1: augment</h2>" in page.read_text(encoding="utf-8")
    fold = project.folder / ".unfreeze/live/data/folds/1/augment"
    shutil.copytree(project.folder / ".unfreeze/live/augment", fold)
    project.run("python", "-m", "flows.live", "--once")
    assert "<h2>data/folds/1/augment</h2>" in page.read_text(encoding="utf-8")


def test_a_row_that_is_just_being_written_and_a_loss_that_is_no_number(tmp_path: Path) -> None:
    (tmp_path / "plots/metrics").mkdir(parents=True)
    (tmp_path / "plots/metrics/loss.tsv").write_text("step\tloss\n0\t1.5\n1\tnan\n2\t0.5\n3\t1.2e-", encoding="utf-8")
    assert points(tmp_path, "loss") == [(0, 1.5), (2, 0.5)]


@pytest.mark.slow
def test_experiments_of_a_repository(project: Project) -> None:
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "all run")
    project.run("dvc", "exp", "run", "-q", "--name", "warm", "-S", "tta.n_aug=3", "evaluate")
    project.run("git", "checkout", "-q", ".")
    project.run("dvc", "checkout", "-q", "tta")
    assert "3 results: compare.html" in project.run("python", "-m", "flows.compare").stdout
    html = (project.folder / "compare.html").read_text(encoding="utf-8")
    assert re.findall(r'<th scope="row">(tta[^<]*)</th>\s*<td>2</td><td>2</td><td>3</td>', html) == ["tta.n_aug"]
    assert "9 pictures in both" in html
    assert "neither in git nor" not in html
    project.run("rm", "-r", ".dvc/cache")
    project.run("python", "-m", "flows.compare", "workspace", "warm", "--out", "poor.html")
    html = (project.folder / "poor.html").read_text(encoding="utf-8")
    assert "Not known: the predictions of one of the two results are missing." in html
    assert re.search(r"<b>warm</b>: neither in git nor in the cache: .*data/tta/valid.parquet", html)
    done = project.run("python", "-m", "flows.compare", "nothing", check=False)
    assert done.returncode == 1
    assert re.fullmatch(r"compare: .*nothing.*: `dvc exp show` and `git branch -a` list what there is\n", done.stderr)
