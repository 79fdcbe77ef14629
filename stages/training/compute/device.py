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

ModuleOrTensor = TypeVar("ModuleOrTensor", bound=nn.Module | torch.Tensor)
Precision = Literal["auto", "float32", "bfloat16", "float16"]
MIN_CPU_BATCH = 16  # A batch on the CPU has at least this many pictures.
PICTURES_PER_THREAD_MULTIPLE = 4  # The number of pictures that one thread computes is a multiple of this.
BFLOAT16_CAPABILITY = (8, 0)  # CUDA devices support bfloat16 from this compute capability on.


class DeviceParams(Section):
    name: Literal["auto", "cpu", "cuda"]
    precision: Precision
    fast_depthwise: bool


@dataclass(frozen=True)
class Compute:
    """The device and the precision of all computations.

    Tensors are in channels_last. Autocast is used if the precision is not float32.
    """

    device: torch.device
    precision: torch.dtype
    fast_depthwise: bool = False

    def autocast(self) -> torch.autocast:
        enabled = self.precision is not torch.float32
        return torch.autocast(self.device.type, self.precision if enabled else torch.bfloat16, enabled=enabled)

    def grad_scaler(self) -> torch.amp.GradScaler | None:
        """Returns a scaler of the loss for float16, in which small gradients underflow; None for other precisions."""
        return torch.amp.GradScaler(self.device.type, init_scale=2**10) if self.precision is torch.float16 else None

    def describe(self) -> dict[str, str]:
        """Returns everything about device and precision that the last bits of a result may depend on."""
        cuda = self.device.type == "cuda"
        chip = torch.cuda.get_device_name(self.device) if cuda else _describe_cpu()
        return {"device": self.device.type, "chip": chip, "precision": str(self.precision), "torch": torch.__version__}

    def deterministic_batch_size(self, requested: int) -> int:
        """Rounds the batch size up so that a picture's result is bit-identical whatever else is in the batch.

        On the CPU, also limits torch's threads so that the size does not exceed max(2 * requested, MIN_CPU_BATCH).
        """
        if self.device.type != "cpu":
            return requested
        size, threads = batch_and_threads(requested, torch.get_num_threads())
        torch.set_num_threads(threads)
        return size

    def min_batch_size(self) -> int:
        """Returns the smallest size that `deterministic_batch_size` returns."""
        return MIN_CPU_BATCH if self.device.type == "cpu" else 1

    def to_device_async(self, tensor: torch.Tensor) -> torch.Tensor:
        """Copy a tensor to the device. A GPU copies it from pinned memory, while computation continues."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def to_device(self, module_or_batch: ModuleOrTensor) -> ModuleOrTensor:
        """Move a module or a 4-d batch to the device, in channels_last."""
        movable: Any = module_or_batch
        return cast("ModuleOrTensor", movable.to(self.device, memory_format=torch.channels_last))


def batch_and_threads(requested: int, available_threads: int) -> tuple[int, int]:
    """Returns (batch size, number of threads) with as many threads as possible.

    The batch size is at least `requested` and at most max(2 * requested, MIN_CPU_BATCH).

    torch splits a tensor evenly among its threads (fewer threads for small tensors). At the end of each thread's part,
    numbers that do not fill a vector are computed with scalar code, and the results of scalar and vector `exp` differ
    in the last bits. Each thread's part must therefore be a whole number of vectors, for every thread count up to the
    limit: every such count must divide the batch into multiples of PICTURES_PER_THREAD_MULTIPLE.
    """
    max_size = max(2 * requested, MIN_CPU_BATCH)
    candidates = []
    for threads in range(1, available_threads + 1):
        multiple = _batch_multiple(threads)
        size = -(-requested // multiple) * multiple  # rounded up
        if size <= max_size:
            candidates.append((size, threads))
    return max(candidates, key=lambda candidate: (candidate[1], -candidate[0]))


def _batch_multiple(threads: int) -> int:
    """Returns the number that batch sizes must be multiples of, if torch uses up to `threads` threads."""
    return math.lcm(MIN_CPU_BATCH, PICTURES_PER_THREAD_MULTIPLE * math.lcm(*range(1, threads + 1)))


def set_up_device(params: DeviceParams, seed: int, out: TextIO | None = None, strict: bool = True) -> Compute:
    """Chooses device and precision, and prints both to `out` (default stdout). Makes runs repeatable and seeds torch's
    global generator, which dropout uses.

    `strict`: if the device does not support the precision, raise an error; otherwise use the precision `auto` instead.

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
    if params.name == "auto" and not has_cuda and (warning := nvidia_card_warning()):
        print(f"warning: {warning}", file=out)
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


def choose_precision(requested: Precision, capability: tuple[int, int] | None, cpu_has_bfloat16: bool) -> torch.dtype:
    """Returns the dtype of the requested precision. `auto` is bfloat16 if the hardware supports it, else float32.

    `capability`: the compute capability of the CUDA device; None for the CPU.

    Raises:
        StageError: the device does not support the requested precision.
    """
    if requested == "auto":
        has_bfloat16 = cpu_has_bfloat16 if capability is None else capability >= BFLOAT16_CAPABILITY
        return torch.bfloat16 if has_bfloat16 else torch.float32
    if requested == "float16" and capability is None:
        raise StageError(
            "device.precision is float16, which is supported on GPUs only, and the device is the CPU: set it to "
            "auto, float32 or bfloat16"
        )
    if requested == "bfloat16" and capability is not None and capability < BFLOAT16_CAPABILITY:
        raise StageError(
            f"device.precision is bfloat16, but the GPU has compute capability {capability[0]}.{capability[1]}, and "
            "bfloat16 needs 8.0 or higher: set it to float16 or float32"
        )
    return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[requested]


def make_repeatable(device: torch.device) -> None:
    """Makes torch deterministic and turns off TF32. Call this before any computation on the device."""
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
        # This is equivalent to use_deterministic_algorithms(True), which would also load torch's compiler.
        torch.set_deterministic_debug_mode("error")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def nvidia_card_warning(root: Path = Path("/")) -> str | None:
    """Returns a warning if torch cannot use the machine's NVIDIA card; None if there is no card, or if
    CUDA_VISIBLE_DEVICES hides it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") in ("", "-1"):
        return None
    traces = [root / "proc/driver/nvidia/version", root / "dev/nvidia0"]
    if not any(path.exists() for path in traces) and not shutil.which("nvidia-smi"):
        return None
    built = f"is built for CUDA {torch.version.cuda}" if torch.version.cuda else "is built without CUDA"
    return (
        f"this machine has an NVIDIA card, but torch {torch.__version__}, which {built}, cannot use it: the stage runs "
        "on the CPU. Compare torch's CUDA version with the driver's (`nvidia-smi` shows it), or set device.name to cpu"
    )


@contextmanager
def enough_memory(param: str, batch_size: int, min_batch_size: int = 2) -> Iterator[None]:
    """Turns out-of-memory errors into a StageError that suggests what to try.

    `param`: the param whose value is `batch_size`, as `section.name`. `min_batch_size`: the smallest batch
    size that the message may suggest.
    """
    try:
        yield
    except RuntimeError as error:  # includes torch.OutOfMemoryError, which is raised for CUDA only
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        owner = "the GPU's" if isinstance(error, torch.OutOfMemoryError) else "the machine's"
        smaller = max(batch_size // 2, min_batch_size)
        advice = f"try {smaller}, or a smaller size_px" if smaller < batch_size else "try a smaller size_px"
        raise StageError(f"{owner} memory is too small for {param} = {batch_size}: {advice}") from error


def _describe_cpu() -> str:
    """Returns the CPU features by which torch and oneDNN choose their kernels, and the number of threads."""
    features = [name for name, value in torch.cpu.get_capabilities().items() if value is True]
    return " ".join([torch.backends.cpu.get_cpu_capability(), f"{torch.get_num_threads()} threads", *sorted(features)])


def cpu_has_bfloat16() -> bool:
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def _keep_freed_memory() -> None:
    """Stop glibc from returning every large freed block to the system.

    By default each activation map is mmapped, zeroed page by page and unmapped again. On the CPU this took more time
    than the convolutions (EfficientNet-Lite0 at 224 px, bfloat16: 2 to 3.5 times fewer images/s). See mallopt(3).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_mmap_max = -1, -4
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, -1)
