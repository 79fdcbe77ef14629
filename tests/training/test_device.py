"""Device and precision: what is chosen, refused and said. There is no GPU here: what it would answer is given."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from stages.runtime.errors import StageError
from stages.training.compute.device import (
    Compute,
    DeviceParams,
    Precision,
    batch_and_threads,
    choose_precision,
    nvidia_card_warning,
    set_up_device,
)
from tests.conftest import ROOT

T4, A100 = (7, 5), (8, 0)


@pytest.mark.parametrize(
    ("requested", "capability", "cpu_has_bfloat16", "chosen"),
    [
        ("auto", None, True, torch.bfloat16),
        ("auto", None, False, torch.float32),
        ("auto", A100, False, torch.bfloat16),
        ("auto", T4, True, torch.float32),
        ("float16", T4, False, torch.float16),
        ("float32", A100, True, torch.float32),
        ("bfloat16", A100, False, torch.bfloat16),
        ("bfloat16", None, False, torch.bfloat16),
    ],
)
def test_precision(
    requested: Precision, capability: tuple[int, int] | None, cpu_has_bfloat16: bool, chosen: torch.dtype
) -> None:
    assert choose_precision(requested, capability, cpu_has_bfloat16) is chosen


@pytest.mark.parametrize(
    ("requested", "capability", "message"),
    [
        ("bfloat16", T4, "compute capability 7.5, and bfloat16 needs 8.0 or higher: set it to float16 or float32"),
        ("float16", None, "float16, which is supported on GPUs only, and the device is the CPU: set it to auto, "),
    ],
)
def test_a_precision_that_the_device_lacks_is_refused(
    requested: Precision, capability: tuple[int, int] | None, message: str
) -> None:
    with pytest.raises(StageError, match=message):
        choose_precision(requested, capability, cpu_has_bfloat16=True)


def test_what_is_set_for_cuda() -> None:
    """In a process of its own: it stays set."""
    program = """
import os, sys, torch
from stages.training.compute.device import make_repeatable
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
make_repeatable(torch.device("cuda"))
assert not torch.backends.cuda.matmul.allow_tf32 and not torch.backends.cudnn.allow_tf32
assert torch.get_float32_matmul_precision() == "highest"
assert not torch.backends.cudnn.benchmark and torch.backends.cudnn.deterministic
assert torch.are_deterministic_algorithms_enabled()
assert not torch.is_deterministic_algorithms_warn_only_enabled()
assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
assert "torch._inductor" not in sys.modules
"""
    subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, check=True)


def test_a_card_that_torch_cannot_use_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`tmp_path` stands for the root of a machine's file system, and its bin/ for PATH."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert nvidia_card_warning(tmp_path) is None
    for name in ("proc/driver/nvidia/version", "dev/nvidia0", "bin/nvidia-smi"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
        assert "has an NVIDIA card, but torch" in (nvidia_card_warning(tmp_path) or "")
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden on purpose
        assert nvidia_card_warning(tmp_path) is None
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        path.unlink()
        path.parent.rmdir()
    monkeypatch.setattr("stages.training.compute.device.nvidia_card_warning", lambda: "a card")
    for name, n_warnings in (("auto", 1), ("cpu", 0)):
        set_up_device(DeviceParams.model_validate({"name": name, "precision": "float32", "fast_depthwise": True}), 0)
        assert capsys.readouterr().out.count("warning: a card\n") == n_warnings * (not torch.cuda.is_available())


def test_the_choice_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_device(DeviceParams(name="cpu", precision="bfloat16", fast_depthwise=True), 0)
    n = torch.get_num_threads()
    assert capsys.readouterr().out == f"device: cpu ({n} threads), precision: bfloat16\n"


def test_no_more_threads_than_the_machine_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's share of a larger machine, by a stand-in for what the system says."""
    before = torch.get_num_threads()
    torch.set_num_threads(96)
    try:
        monkeypatch.setattr("stages.training.compute.device.available_cpus", lambda: 2)
        set_up_device(DeviceParams(name="cpu", precision="float32", fast_depthwise=True), 0)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("requested", "available", "size", "threads"),
    [
        (16, 1, 16, 1),
        (16, 2, 16, 2),  # as ever
        (64, 2, 64, 2),
        (16, 63, 16, 2),
        (24, 63, 48, 4),
        (48, 3, 48, 3),
        (120, 63, 240, 6),
        (5, 2, 16, 2),
        (17, 1, 32, 1),
    ],
)
def test_a_deterministic_batch_is_at_most_twice_what_was_requested(
    requested: int, available: int, size: int, threads: int
) -> None:
    assert batch_and_threads(requested, available) == (size, threads)


def test_it_is_so_for_every_size_and_number_of_threads() -> None:
    for available in range(1, 130):
        for requested in range(1, 300, 7):
            size, threads = batch_and_threads(requested, available)
            assert requested <= size <= max(2 * requested, 16)
            assert 1 <= threads <= available


@pytest.mark.parametrize("available", [2, 3, 5, 7, 63])
@pytest.mark.parametrize("requested", [16, 48, 120])
def test_the_same_picture_everywhere_in_a_batch_gives_the_same_bits(requested: int, available: int) -> None:
    """SiLU's exp is another one in torch's vectors than in what they leave over."""
    before = torch.get_num_threads()
    torch.set_num_threads(available)
    try:
        size = Compute(torch.device("cpu"), torch.float32).deterministic_batch_size(requested)
        for n_channels, places in ((40, 25), (16, 64), (32, 169), (112, 49), (24, 36), (96, 49), (192, 36)):
            one = torch.randn(1, n_channels * places, generator=torch.Generator().manual_seed(places))
            found = torch.nn.functional.silu(one.repeat(size, 1))
            assert torch.equal(found, found[:1].expand(size, -1))
    finally:
        torch.set_num_threads(before)
