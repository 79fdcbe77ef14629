"""The one decision on device, precision and memory format. Section `device` of params.yaml."""

import ctypes
import math
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from stages.models.networks.depthwise import speed_up_depthwise
from stages.runtime import receipt
from stages.runtime.errors import StageError
from stages.runtime.params import Section

Placed = TypeVar("Placed", bound=nn.Module | torch.Tensor)


class DeviceParams(Section):
    name: Literal["auto", "cpu", "cuda"]
    precision: Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Compute:
    """Where and how tensors are computed: channels_last throughout, autocast to bfloat16 where the hardware has it."""

    device: torch.device
    precision: torch.dtype

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision is torch.bfloat16)

    def describe(self) -> dict[str, str]:
        """Everything about it that the last bits of a result may depend on."""
        cuda = self.device.type == "cuda"
        chip = torch.cuda.get_device_name(self.device) if cuda else _cpu()
        return {"device": self.device.type, "chip": chip, "precision": str(self.precision), "torch": torch.__version__}

    def whole(self, batch_size: int) -> int:
        """At least `batch_size`: as many as a picture's result, to the bit, needs to depend on itself alone.

        torch shares out a tensor's numbers evenly among the threads and leaves the last few of a share to other code
        than its vectors (an exp of other last bits): no picture may lie at such a seam.
        """
        if self.device.type != "cpu":
            return batch_size
        step = math.lcm(16, 4 * torch.get_num_threads())
        return -(-batch_size // step) * step

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """To the device; to a GPU from pinned memory, so that it goes on computing meanwhile."""
        if self.device.type == "cuda":
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def place(self, what: Placed) -> Placed:
        """A module or a 4-d batch on the device in channels_last."""
        placed: Any = what
        placed = placed.to(self.device, memory_format=torch.channels_last)
        if isinstance(placed, nn.Module) and self.device.type == "cpu" and self.precision is torch.bfloat16:
            speed_up_depthwise(placed)
        return cast("Placed", placed)


def compute_on(params: DeviceParams, seed: int) -> Compute:
    """Choose the device, set what makes runs repeatable, seed torch's global generator (dropout draws from it).

    Raises:
        StageError: `cuda` was asked for and there is none.
    """
    if params.name == "cuda" and not torch.cuda.is_available():
        raise StageError("device.name is cuda, but torch finds no CUDA device: set it to auto or cpu")
    device = torch.device("cuda" if params.name != "cpu" and torch.cuda.is_available() else "cpu")
    precision = torch.float32
    if params.precision == "bfloat16" or (params.precision == "auto" and _has_bfloat16(device)):
        precision = torch.bfloat16
    torch.manual_seed(seed)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if device.type == "cpu":
        _keep_freed_memory()
    receipt.note(device=device.type, precision=str(precision).removeprefix("torch."))
    return Compute(device, precision)


@contextmanager
def enough_memory(key: str, batch_size: int) -> Iterator[None]:
    """`key`: the param that `batch_size` is the value of. Raises StageError, which says what to try."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one, of CUDA alone
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
            raise
        where = "the GPU's" if isinstance(error, torch.OutOfMemoryError) else "the machine's"
        raise StageError(
            f"{where} memory is too small for {key} = {batch_size}: try {max(batch_size // 2, 2)}, or a smaller size_px"
        ) from error


def _cpu() -> str:
    """What torch and oneDNN choose their kernels by, and the threads that share the work."""
    has = [name for name, value in torch.cpu.get_capabilities().items() if value is True]
    return " ".join([torch.backends.cpu.get_cpu_capability(), f"{torch.get_num_threads()} threads", *sorted(has)])


def _has_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
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
