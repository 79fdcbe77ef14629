"""The recipe: one module a stage. Stages import neither dvc nor prefect and run by hand: `python -m stages.<stage>`.

timm, torchvision and torch.optim load torch's compiler for decorators that switch it off, and torch itself loads what
tells the shapes of its operators' results without computing them (`_meta_registrations`). No stage compiles, or has
meta tensors: without them each one starts about 2.2 s sooner and holds about 100 MB less. A process that imports
`stages` cannot `torch.compile`, nor write ONNX, which traces with that compiler: `python -m stages.export` alone starts
with it.
"""

import gc
import logging
import os
import sys
import time
from types import ModuleType, TracebackType
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported, ONNX Runtime would tell its maker of each session
STARTED = time.monotonic()  # of this process, nearly: what `stages.runtime.receipt` counts from


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before `run` heeds it: imports take seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped before its start: run it again", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # Python is still looking for the stage to run
    gc.disable()  # imports make a million objects and no garbage: half a second a stage; `run` switches it on again
    sys.excepthook = _in_one_line


def _same(function: Any, *_: Any, **__: Any) -> Any:
    return function


def _never(*_: Any) -> bool:
    return False


class _NoCompiler(ModuleType):
    """Stands in for the compiler's modules: what must not be compiled stays as it is."""

    __path__: list[str] = []  # noqa: RUF012 (a package's attribute, not a class's)
    disable = staticmethod(_same)
    graph_break = staticmethod(_never)
    is_compile_supported = staticmethod(_never)


if "stages.export" in sys.orig_argv:
    logging.getLogger("torch.utils.flop_counter").setLevel(logging.ERROR)  # misses triton
    sys.modules["triton"] = None  # type: ignore[assignment]  # unused, 1 s, and pages about leaks on stderr at the end
elif "torch._dynamo" not in sys.modules:
    for name in ("torch._dynamo", "torch._dynamo.utils", "torch._meta_registrations"):
        sys.modules.setdefault(name, _NoCompiler(name))
