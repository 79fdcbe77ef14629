"""What a person can mend is said in one line; what only we can mend keeps its traceback."""

import errno
import os
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from safetensors.torch import save_file

from stages.runtime import folders
from stages.runtime.errors import StageError, user_message
from stages.training.compute.device import enough_memory


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "No space left on device: make room there"),
        (errno.EDQUOT, "Disk quota exceeded: make room there"),
        (errno.EFBIG, "File too large: raise the limit (`ulimit -f`)"),
        (errno.EMFILE, "Too many open files: raise the limit (`ulimit -n`)"),
        (errno.EROFS, "Read-only file system: run it where you may write"),
        (errno.EACCES, "Permission denied: run it where you may write and read"),
    ],
)
def test_an_error_of_the_system(number: int, advice: str) -> None:
    line = user_message(OSError(number, os.strerror(number), "data/tta/valid.parquet"), "tta")
    assert line is not None
    assert line.startswith(f"data/tta/valid.parquet: {advice}")


def test_one_that_a_library_wraps() -> None:
    error = RuntimeError("the writer failed")
    error.__cause__ = OSError(errno.ENOSPC, "full")
    assert "No space left on device" in str(user_message(error, "tta"))


def test_those_of_the_libraries_that_write_for_us(small_disk: Path) -> None:
    with pytest.raises(Exception, match="No space") as found:
        save_file({"a": torch.zeros(1 << 20)}, small_disk / "weights")
    assert "No space left on device" in str(user_message(found.value, "unfreeze"))
    with pa.OSFile(str(small_disk / "shard"), "wb") as file, pytest.raises(OSError, match="No space") as found:
        file.write(bytes(1 << 22))
    assert "No space left on device" in str(user_message(found.value, "resize"))


def test_what_another_stage_makes_is_named() -> None:
    error = FileNotFoundError(errno.ENOENT, "No such file", "data/split/train.csv")
    assert user_message(error, "lr_find") == (
        "no data/split/train.csv, which another stage makes: run `dvc repro lr_find`, which runs that stage first"
    )


def test_the_advice_fits_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def advice(name: str, stage: str) -> str:
        message = user_message(FileNotFoundError(errno.ENOENT, "No such file", name), stage) or ""
        assert message.startswith(f"no {name}, which another stage makes: ")
        return message

    assert "run `dvc repro lr_find`" in advice("data/precompute/shards/00.parquet", "lr_find")
    assert "run `dvc repro pipelines/folds/dvc.yaml:summary`" in advice("data/folds/0/evaluate/metrics.json", "folds")
    monkeypatch.setattr(folders, "_run", folders.Run(Path("data/folds/1")))
    assert "as in `--shared split`" in advice("data/folds/1/split/train.csv", "lr_find")
    assert "as in `--shared precompute`" in advice("data/a b/precompute/shards/00.parquet", "lr_find")


def test_what_only_we_can_mend_is_not_ours_to_shorten() -> None:
    assert user_message(KeyError("sha"), "tta") is None
    assert user_message(FileNotFoundError(errno.ENOENT, "No such file", "elsewhere"), "tta") is None


def test_an_operation_that_cannot_be_repeated_is_one_line() -> None:
    """put_ is one on the CPU too; of networks' operations only CUDA has such."""
    torch.set_deterministic_debug_mode("error")
    try:
        with pytest.raises(RuntimeError) as raised:
            torch.zeros(3).put_(torch.tensor([1]), torch.ones(1))
    finally:
        torch.set_deterministic_debug_mode("default")
    line = user_message(raised.value, "train_full") or ""
    assert line.startswith(
        "the network uses put_, whose results on a GPU differ in the last bits each time: choose another backbone"
    )


def test_memory_that_is_too_small_says_which_batch_size_to_try() -> None:
    """Stand-ins for a full GPU and a full machine: this one has neither."""
    for error, where in (
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), "the GPU's"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "the machine's"),
    ):
        message = rf"{where} memory is too small for train_full.batch_size = 32: try 16, or a smaller size_px"
        with pytest.raises(StageError, match=message), enough_memory("train_full.batch_size", 32):
            raise error
    with (
        pytest.raises(StageError, match=r"tta.batch_size = 16: try a smaller size_px$"),
        enough_memory("tta.batch_size", 16, min_batch_size=16),
    ):  # 8 would be padded to 16 again
        raise torch.OutOfMemoryError
    with pytest.raises(StageError, match=r"= 24: try 16, or"), enough_memory("tta.batch_size", 24, min_batch_size=16):
        raise torch.OutOfMemoryError
    with pytest.raises(RuntimeError, match="shape"), enough_memory("train_full.batch_size", 32):
        raise RuntimeError("shape mismatch")
