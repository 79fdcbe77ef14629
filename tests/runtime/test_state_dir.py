"""What is remembered lies where the next run finds it."""

from pathlib import Path

import pytest

from stages.runtime.state_dir import state_dir


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNFREEZE_HOME", raising=False)
    for folder in (".", ".dvc/tmp/exps/tmp1", ".dvc/tmp/exps/standalone/tmp2", ".dvc/tmp/exps/tmp1/data/folds/0"):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        assert state_dir().absolute() == tmp_path / ".unfreeze"
    monkeypatch.setenv("UNFREEZE_HOME", "")
    assert state_dir() == tmp_path / ".unfreeze"
    monkeypatch.setenv("UNFREEZE_HOME", "elsewhere")
    assert state_dir() == Path("elsewhere")
