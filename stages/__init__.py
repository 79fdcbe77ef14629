"""The recipe: one module a stage. Stages import neither dvc nor prefect and run by hand: `python -m stages.<stage>`.

What a process that imports `stages` may do with torch is not less than elsewhere: see `stages.runtime.lazy_torch`.
"""

import gc
import os
import sys
import time
from types import TracebackType

from stages.runtime import lazy_torch

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before it is imported, ONNX Runtime would tell its maker of each session
STARTED = time.monotonic()  # of this process, nearly: what `stages.runtime.receipt` counts from


def _in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C before `run` heeds it: imports take seconds."""
    if issubclass(kind, KeyboardInterrupt):
        print("stopped before its start: run it again", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # Python is still looking for the stage to run
    if sys.platform == "win32":  # no fcntl, no resource, no signals to stop by
        sys.exit("stages run on Linux and macOS; on Windows use WSL2: https://learn.microsoft.com/windows/wsl/install")
    gc.disable()  # imports make a million objects and no garbage: half a second a stage; `run` switches it on again
    sys.excepthook = _in_one_line


lazy_torch.install()
