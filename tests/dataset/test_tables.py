"""The tables of the split that later stages read, and the submission for Kaggle."""

from pathlib import Path

import numpy as np
import pytest

from stages.dataset.tables.split_tables import Rows, read_rows
from stages.dataset.tables.submission import submission
from stages.tasks.single_label import SingleLabel


def test_a_submission_has_rows_that_sum_to_one_and_classes_of_any_name() -> None:
    probabilities = np.array([[0.2, 0.2, 0.4], [1, 0, 0], [0.1, 0.2, 0.3]], np.float32)
    task = SingleLabel(name="single_label", classes=["id", "b", "c"])
    table = submission(["7", "a/8.jpg", "NA"], task.submission(probabilities))
    assert list(table.columns) == ["id", "id", "b", "c"]
    assert table.iloc[:, 0].tolist() == ["7", "a/8.jpg", "NA"]
    assert table.iloc[:, 1:].to_numpy().tolist() == [[0.25, 0.25, 0.5], [1, 0, 0], [0.166667, 0.333333, 0.5]]


def test_a_part_is_read_as_text_in_its_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/split").mkdir(parents=True)
    (tmp_path / "data/split/train.csv").write_text(
        "id,label,sha256\n007,NA,ab\n1e3,1.0,cd\n002,,12\n003,NA,34\n", encoding="utf-8"
    )
    rows = read_rows(Path("data/split"), "train")
    assert rows == Rows(["007", "1e3", "002", "003"], ["NA", "1.0", "", "NA"], ["ab", "cd", "12", "34"])
    assert SingleLabel.from_labels(rows.labels).classes == ["", "1.0", "NA"]
