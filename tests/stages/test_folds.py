"""The summary of folds, by values worked out by hand."""

import math
from pathlib import Path

import pandas as pd
import pytest

from stages.folds import pooled, spread, vote
from stages.reporting.results.side_by_side import RunResult, as_table
from stages.runtime.errors import StageError


def fold(name: str, ids: str, said: list[float], metric: float = 0.5) -> RunResult:
    """Of classes no and yes, all of label yes; `said`: the probability of yes, of valid and of test."""

    def table(ids: list[str], label: str, yes: list[float]) -> pd.DataFrame:
        both = {"no": [1 - y for y in yes], "yes": yes}
        columns = {f"{kind}:{name}": p for kind in ("plain", "tta") for name, p in both.items()}
        return pd.DataFrame({"id": ids, "label": label} | columns)

    valid, test = table(list(ids), "yes", said), table(["t0", "t1"], "", [metric, 0.5])
    return RunResult(Path("data/folds") / name, {"accuracy_tta": metric}, valid, test)


def test_mean_and_spread() -> None:
    rows = as_table([fold("0", "ab", [1, 1], 0.5), fold("1", "cd", [1, 1], 0.7), fold("2", "ef", [1, 1], 0.9)], "fold")
    assert spread(rows) == {"accuracy_tta_mean": pytest.approx(0.7), "accuracy_tta_sd": pytest.approx(0.2)}
    assert rows["fold"].tolist() == ["0", "1", "2"]


def test_pooled_are_all_valid_pictures() -> None:
    said = pooled([fold("0", "ab", [0.8, 0.4]), fold("1", "cde", [0.9, 0.6, 0.7])])
    losses = [-math.log(p) for p in (0.8, 0.4, 0.9, 0.6, 0.7)]
    mean = sum(losses) / 5
    sd = (sum((loss - mean) ** 2 for loss in losses) / 4) ** 0.5
    assert said["n_pooled"] == 5
    assert said["accuracy_tta_pooled"] == pytest.approx(0.8)
    assert said["log_loss_tta_pooled"] == pytest.approx(mean)
    half = 1.959964 * sd / 5**0.5
    assert [said["log_loss_tta_pooled_low"], said["log_loss_tta_pooled_high"]] == pytest.approx(
        [mean - half, mean + half]
    )
    wilson = [said["accuracy_tta_pooled_low"], said["accuracy_tta_pooled_high"]]
    assert wilson == pytest.approx([0.375535, 0.963776], abs=1e-6)  # of 4 in 5, by hand


def test_folds_that_share_a_picture_are_none() -> None:
    with pytest.raises(StageError, match="1 pictures are valid in more than one fold .*c.*folders"):
        pooled([fold("0", "abc", [1, 1, 1]), fold("1", "cd", [1, 1])])


def test_the_vote_is_the_mean() -> None:
    said = vote([fold("0", "ab", [1, 1], 0.5), fold("1", "cd", [1, 1], 0.8)])
    assert said.columns.tolist() == ["id", "no", "yes"]
    assert said["yes"].tolist() == pytest.approx([0.65, 0.5])
    other = fold("1", "cd", [1, 1])
    other.test.loc[0, "id"] = "another"
    with pytest.raises(StageError, match="data/folds/1 has other test pictures or classes than data/folds/0"):
        vote([fold("0", "ab", [1, 1]), other])
