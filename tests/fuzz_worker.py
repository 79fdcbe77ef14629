"""The process in which tests/fuzz.py tries one input after the other: `python -m tests.fuzz_worker KIND FIRST END`.

Runs in an empty folder. Says on stdout, a line of JSON each, which input it begins and what came of it. What ends the
process, a segmentation fault or the alarm, the parent sees by the input that was begun and not ended.
"""

import importlib
import json
import os
import re
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS, MIB = int(os.environ.get("FUZZ_SECONDS", "10")), 1024  # of CPU, of further memory: more is a failure
GUARD_MIB = 4096  # the kernel's limit: above ours, else a MemoryError would look like a picture that is refused
LIBTIFF = re.compile(r"(?m)^[\w.]+: .*\.\n")  # it prints its errors, a line each, and Pillow cannot tell it not to
Look = Callable[[bytes], str]
Target = tuple[Callable[[int], bytes], Look]


def memory(field: str) -> int:
    """VmRSS, VmHWM or VmSize of this process, MiB."""
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text(encoding="utf-8"))
    return int(found[1]) // 1024 if found else 0


def judge(look: Look, data: bytes) -> tuple[str, str]:
    """(outcome, detail): fine, refused, or what must not be: crash, clutter, memory."""
    said, before = os.fstat(2).st_size, memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # VmHWM starts anew
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        outcome, detail = look(data), ""
    except BaseException as error:  # a panic in Rust is no Exception
        last = traceback.extract_tb(error.__traceback__)[-1]
        outcome = "crash"
        detail = f"{type(error).__name__}: {str(error)[:200]} ({Path(last.filename).name}:{last.lineno})"
    signal.setitimer(signal.ITIMER_PROF, 0)
    sys.stderr.flush()
    if (more := memory("VmHWM") - before) > MIB:
        outcome, detail = "memory", f"{more} MiB; {outcome} {detail}"
    elif outcome != "crash" and (clutter := LIBTIFF.sub("", os.pread(2, 2000, said).decode(errors="replace")).strip()):
        outcome, detail = "clutter", clutter[:400]
    return outcome, detail


def main() -> None:
    kind, first, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    tell = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    with tempfile.TemporaryFile() as said, Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(said.fileno(), 2)
        warnings.simplefilter("always")  # as in a fresh process, for each input; what a stage silences comes later
        warnings.simplefilter("ignore", DeprecationWarning)
        module, _, name = kind.partition(":")
        make, look = getattr(importlib.import_module(module), name)()
        limit = (memory("VmSize") + GUARD_MIB) * 2**20
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number in range(first, end):
            data: Any = make(number)
            tell.write(json.dumps([number]) + "\n")
            tell.write(json.dumps([number, *judge(look, data)]) + "\n")


if __name__ == "__main__":
    main()
