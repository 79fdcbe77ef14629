"""Errors that the user can fix: one line that says what is wrong and what to do."""

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

from stages.runtime.folders import run_name

MAX_LINE_LENGTH = 2000


class StageError(Exception):
    """A message for the user: what was found, where, what was expected, what to do next."""


ADVICE = {
    errno.ENOSPC: "make room there",
    errno.EDQUOT: "make room there",
    errno.EFBIG: "raise the limit (`ulimit -f`)",
    errno.EMFILE: "raise the limit (`ulimit -n`)",
    errno.ENFILE: "close other programs",
    errno.EROFS: "run it where you may write",
    errno.EACCES: "run it where you may write and read",
    errno.EPERM: "run it where you may write and read",
    errno.EIO: "check the disk",
}
# safetensors and pyarrow give the errno only in the text of an exception; torch only says that a write failed
ERRNO_IN_TEXT = re.compile(r"\(os error (\d+)\)|\[Errno (\d+)\]")
NONDETERMINISTIC_OPERATION = re.compile(
    r"(\w+) does not have a deterministic implementation"
)  # torch's error in the deterministic mode that `device.py` sets


def user_message(error: Exception, stage: str) -> str | None:
    """Returns the message for the user, or None for an unexpected error, whose traceback must be shown."""
    if isinstance(error, StageError):
        return one_line(error)
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or reduce a batch_size in params.yaml"
    for cause in causes(error):
        number = error_number(cause)
        if number in ADVICE:
            name = getattr(cause, "filename", None) or f"{Path.cwd()}, or another folder to which the stage writes"
            return f"{name}: {os.strerror(number)}: {ADVICE[number]}, then run it again; no half-written file was left"
    # pyarrow, safetensors and pandas give the file name only in the text
    if isinstance(error, FileNotFoundError) and (missing := missing_file(error)):
        return f"no {missing}, which another stage makes: {advice_for_missing(missing, stage)}"
    if isinstance(error, RuntimeError) and (match := NONDETERMINISTIC_OPERATION.match(str(error))):
        return (
            f"the network uses {match[1]}, whose results on a GPU differ in the last bits each time: choose another "
            "backbone.name, or set device.name to cpu"
        )
    return None


def missing_file(error: FileNotFoundError) -> str | None:
    """Returns the missing file below data/, or None if the error does not name one."""
    if isinstance(error.filename, str) and error.filename.startswith("data/"):
        return error.filename
    match = re.search(r"data/[\w./-]*\w", f"{error.filename} {error}")
    return match[0] if match else None


def advice_for_missing(file: str, stage: str) -> str:
    pipeline = Path("pipelines", stage, "dvc.yaml")
    if pipeline.exists():
        return f"run `dvc repro {pipeline}:summary`, which runs that stage first"
    if run_name(stage) == stage:
        return f"run `dvc repro {stage}`, which runs that stage first"
    return (
        f"run that stage with the same --root first, or name it after --shared, as in `--shared {made_by(file)}`, to "
        "take its outputs from data"
    )


def made_by(file: str) -> str:
    """Returns the stage whose folder holds `file`: the folder next to the file, above `shards`."""
    folder = Path(file).parent
    return folder.parent.name if folder.name == "shards" else folder.name


def one_line(error: Exception | str) -> str:
    """Returns the message on one line that is safe to print.

    File names and labels in a message may contain control codes for the terminal, or megabytes of text.
    """
    line = "".join(char if char.isprintable() else "\ufffd" for char in " ".join(str(error).split()))
    return line if len(line) <= MAX_LINE_LENGTH else f"{line[:MAX_LINE_LENGTH]}..."


def causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def error_number(error: BaseException) -> int:
    """Returns the errno of an exception, or 0 if it has none."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    match = ERRNO_IN_TEXT.search(str(error))
    return int(match[1] or match[2]) if match else 0
