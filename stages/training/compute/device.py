"""Chooses device, precision and memory format. Section `device` of params.yaml."""

import ctypes
import math
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO, TypeVar, cast

import torch
from torch import nn

from stages.runtime import receipt
from stages.runtime.errors import StageError
from stages.runtime.params import Section
from stages.runtime.threads import available_cpus

Placed = TypeVar("Placed", bound=nn.Module | torch.Tensor)
Precision = Literal["auto", "float32", "bfloat16", "float16"]
MIN_CPU_BATCH, PICTURES_PER_THREAD = 16, 4  # pictures: of a batch, and of a thread's share
CUDA_BFLOAT16 = (8, 0)  # compute capability


class DeviceParams(Section):
    name: Literal["auto", "cpu", "cuda"]
    precision: Precision
    fast_depthwise: bool


@dataclass(frozen=True)
class Compute:
    """Where and how tensors are computed: channels_last throughout, autocast where the precision is not float32."""

    device: torch.device
    precision: torch.dtype
    fast_depthwise: bool = False

    def autocast(self) -> torch.autocast:
        enabled = self.precision is not torch.float32
        return torch.autocast(self.device.type, self.precision if enabled else torch.bfloat16, enabled=enabled)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """A scaler of the loss for float16, in which small gradients underflow; None for the other precisions."""
        return torch.amp.GradScaler(self.device.type, init_scale=2**10) if self.precision is torch.float16 else None

    def describe(self) -> dict[str, str]:
        """Everything about device and precision that the last bits of a result may depend on."""
        cuda = self.device.type == "cuda"
        chip = torch.cuda.get_device_name(self.device) if cuda else _cpu()
        return {"device": self.device.type, "chip": chip, "precision": str(self.precision), "torch": torch.__version__}

    def deterministic_batch_size(self, asked: int) -> int:
        """Rounds the batch size up so that a picture's result is bit-identical whatever else is in the batch.

        On the CPU, also limits torch's threads so that the size does not exceed max(2 * asked, MIN_CPU_BATCH).
        """
        if self.device.type != "cpu":
            return asked
        size, threads = batch_and_threads(asked, torch.get_num_threads())
        torch.set_num_threads(threads)
        return size

    def smallest_deterministic_batch(self) -> int:
        return MIN_CPU_BATCH if self.device.type == "cpu" else 1

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy to the device; to a GPU from pinned memory, so that the copy overlaps with computing."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def place(self, what: Placed) -> Placed:
        """Move a module or a 4-d batch to the device, in channels_last."""
        placed: Any = what
        return cast("Placed", placed.to(self.device, memory_format=torch.channels_last))


def batch_and_threads(asked: int, available: int) -> tuple[int, int]:
    """(batch size, threads): the size up to max(2 * asked, MIN_CPU_BATCH) that allows the most threads.

    torch splits a tensor evenly among its threads (fewer threads for small tensors), and computes the last few numbers
    of a share with scalar instead of vector code (whose exp has other last bits). So no share may end within a vector,
    for any number of threads up to the limit: each must divide the batch into multiples of PICTURES_PER_THREAD.
    """
    max_size = max(2 * asked, MIN_CPU_BATCH)
    sizes = ((-(-asked // step) * step, n) for n in range(1, available + 1) if (step := _step(n)) <= max_size)
    return max(((size, n) for size, n in sizes if size <= max_size), key=lambda pair: (pair[1], -pair[0]))


def _step(threads: int) -> int:
    return math.lcm(MIN_CPU_BATCH, PICTURES_PER_THREAD * math.lcm(*range(1, threads + 1)))


def compute_on(params: DeviceParams, seed: int, out: TextIO | None = None, strict: bool = True) -> Compute:
    """Choose device and precision and print them (to `out`, default stdout), make runs repeatable, seed torch's global
    generator (used by dropout).

    `strict`: a precision that the device does not have is an error; otherwise `auto` takes its place.

    Raises:
        StageError: the requested device or precision is not available.
    """
    has_cuda = params.name != "cpu" and torch.cuda.is_available()
    if params.name == "cuda" and not has_cuda:
        raise StageError("device.name is cuda, but torch finds no CUDA device: set it to auto or cpu")
    device = torch.device("cuda" if has_cuda else "cpu")
    capability = torch.cuda.get_device_capability(device) if has_cuda else None
    try:
        precision = choose_precision(params.precision, capability, cpu_has_bfloat16())
    except StageError:
        if strict:
            raise
        precision = choose_precision("auto", capability, cpu_has_bfloat16())
    if params.name == "auto" and not has_cuda and (card := unused_nvidia_card()):
        print(f"warning: {card}", file=out)
    make_repeatable(device)
    torch.manual_seed(seed)
    if device.type == "cpu":
        torch.set_num_threads(min(torch.get_num_threads(), available_cpus()))
        _keep_freed_memory()
    name = str(precision).removeprefix("torch.")
    chip = torch.cuda.get_device_name(device) if has_cuda else f"{torch.get_num_threads()} threads"
    print(f"device: {device.type} ({chip}), precision: {name}", file=out)
    receipt.note(device=device.type, precision=name)
    return Compute(device, precision, params.fast_depthwise)


def choose_precision(asked: Precision, capability: tuple[int, int] | None, cpu_has_bfloat16: bool) -> torch.dtype:
    """`capability`: of the CUDA device, None for the CPU. auto: bfloat16 where the hardware has it, else float32.

    Raises:
        StageError: the device does not support the requested precision.
    """
    if asked == "auto":
        has_bfloat16 = cpu_has_bfloat16 if capability is None else capability >= CUDA_BFLOAT16
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if asked == "float16" and capability is None:
        raise StageError("device.precision is float16, which is for GPUs: set it to auto, float32 or bfloat16")
    if asked == "bfloat16" and capability is not None and capability < CUDA_BFLOAT16:
        raise StageError(
            f"device.precision is bfloat16, but the GPU has compute capability {capability[0]}.{capability[1]}, and "
            "bfloat16 begins with 8.0: set it to float16 or float32"
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[asked]


def make_repeatable(device: torch.device) -> None:
    """Same inputs, same bits; and float32 means float32. Before anything is computed on the device."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        # as use_deterministic_algorithms(True), which would also load torch's compiler
        torch.set_deterministic_debug_mode("error")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def unused_nvidia_card(root: Path = Path("/")) -> str | None:
    """A warning if torch cannot use the machine's NVIDIA card; None if there is no card, or if it is hidden."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return None
    traces = [root / "proc/driver/nvidia/version", root / "dev/nvidia0"]
    if not any(path.exists() for path in traces) and not shutil.which("nvidia-smi"):
        return None
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
    return (
        f"this machine has an NVIDIA card, but torch {torch.__version__} cannot use it and {built}: computing on the "
        "CPU. Compare with the driver's CUDA version (`nvidia-smi`), or set device.name to cpu"
    )


@contextmanager
def enough_memory(key: str, batch_size: int, smallest: int = 2) -> Iterator[None]:
    """Turns out-of-memory errors into a StageError that suggests what to try.

    `key`: the param whose value is `batch_size`; `smallest`: the smallest batch size that needs less memory.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, of CUDA alone
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        where = "the GPU's" if isinstance(error, torch.OutOfMemoryError) else "the machine's"
        less = max(batch_size // 2, smallest)
        advice = f"try {less}, or a smaller size_px" if less < batch_size else "try a smaller size_px"
        raise StageError(f"{where} memory is too small for {key} = {batch_size}: {advice}") from error


def _cpu() -> str:
    """The CPU features by which torch and oneDNN choose their kernels, and the number of threads."""
    has = [name for name, value in torch.cpu.get_capabilities().items() if value is True]
    return " ".join([torch.backends.cpu.get_cpu_capability(), f"{torch.get_num_threads()} threads", *sorted(has)])


def cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _keep_freed_memory() -> None:
    """Stop glibc from handing every large freed block back to the system.

    By default each activation map is mmapped, zeroed page by page and unmapped again: on the CPU that cost more than
    the convolutions (EfficientNet-Lite0 at 224 px, bfloat16: 2 to 3.5 times fewer images/s). See mallopt(3).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)
