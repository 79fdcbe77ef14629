"""What goes wrong and a person can mend: in one line, with what to do."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

LONGEST_LINE = 2000


class StageError(Exception):
    """Speaks to the person who must act: what was found, where, what was expected, what to do next."""


ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "raise the limit (`ulimit -f`)",
    errno.EMFILE: "raise the limit (`ulimit -n`)",
    errno.ENFILE: "close other programs",
    errno.EROFS: "run it where you may write",
    errno.EACCES: "run it where you may write and read",
    errno.EPERM: "run it where you may write and read",
    errno.EIO: "look at the disk",
}
# safetensors and pyarrow say it in the text alone; torch only says that a write failed
IN_TEXT = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
NOT_DETERMINISTIC = re.compile(
    r"(\w+) does not have a deterministic implementation"
)  # torch, as `device.py` asks it to


def in_one_line(error: Exception, stage: str) -> str | None:
    """None: nobody can mend it but who reads the traceback."""
    if isinstance(error, StageError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or lower a batch_size"
    for one in causes(error):
        number = error_number(one)
        if number in ADVICE:
            name = getattr(one, "filename", None) or f"{Path.cwd()}, or where it was told to write"
            return f"{name}: {os.strerror(number)}: {ADVICE[number]}, then run it again; nothing half-written was left"
    # pyarrow, safetensors and pandas tell the name in the text alone
    if isinstance(error, FileNotFoundError) and (name := re.search(r"data/[\w./-]*\w", f"{error.filename} {error}")):
        return f"no {name[0]}, which another stage makes: run `dvc repro {stage}`, which runs that first"
    if isinstance(error, RuntimeError) and (found := NOT_DETERMINISTIC.match(str(error))):
        return (
            f"the network uses {found[1]}, which gives other last bits each time on a GPU: take another "
            "backbone.name, or set device.name to cpu"
        )
    return None


def one_line(error: Exception | str) -> str:
    """What it says, fit for a terminal: file names and labels may hold what it would obey, or megabytes."""
    line = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(str(error).split()))
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."


def causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__


def error_number(error: BaseException) -> int:
    """errno, or 0 where there is none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    said = IN_TEXT.search(str(error))
    return int(said[1] or said[2]) if said else 0
