"""The stages of the recipe, one module each. They import neither dvc nor prefect.

Each can be run by hand: `python -m stages.<stage>`. Importing `stages` delays the import of torch's compiler until the
compiler is used: see `stages.runtime.lazy_torch`.
"""

import gc
import os
import sys
import time
from types import TracebackType

from stages.runtime import lazy_torch

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # before the import, else ONNX Runtime reports each session
STARTED = time.monotonic()  # nearly the start of this process; `stages.runtime.receipt` counts seconds from here


def _print_interrupt_in_one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Handles Ctrl-C during the imports, which take seconds: `run` installs its signal handlers only later."""
    if issubclass(kind, KeyboardInterrupt):
        print("the stage was stopped before it started: run it again", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if sys.argv[:1] == ["-m"]:  # Python has not yet found the stage to run
    if sys.platform == "win32":  # Windows has no fcntl, no resource and no signals that stop a stage
        sys.exit("stages run on Linux and macOS; on Windows use WSL2: https://learn.microsoft.com/windows/wsl/install")
    gc.disable()  # saves half a second per stage: the imports leave no garbage to collect; `run` enables it again
    sys.excepthook = _print_interrupt_in_one_line


lazy_torch.install()
