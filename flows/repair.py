"""Repairs what DVC had half written when it was killed: `python -m flows.repair`. A run does it by itself.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. Killed at that moment it leaves half a file, and every command after
that refuses to work. The whole entries of a dvc.lock are kept; the others come back from DVC's run-cache.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

from flows.errors import PipelineError
from flows.pipeline import lock_file
from flows.pipeline.dvc_adapter import PIPELINE, open_repo, valid_lock

ENTRY = re.compile(r"^  \S.*:$", re.MULTILINE)  # a stage's first line
BEGIN = "schema: '2.0'"
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)
WRITING_SECONDS = 0.3  # longer than DVC takes to write its few kB


def repair() -> list[str]:
    """What was repaired, in words. Waits for a DVC that is at work here."""
    repo = open_repo(wait_for_lock=True)
    root = Path(repo.root_dir)
    tmp = Path(repo.tmp_dir or root / ".dvc/tmp")
    locks = lock_file.paths(repo)
    with repo.lock:
        done = [repair_lock(path, tmp, path.relative_to(root).as_posix()) for path in locks if path.exists()]
    done.append(repair_rwlock(tmp / "rwlock"))
    return [line for line in done if line]


def repair_lock(path: Path, tmp: Path, name: str) -> str:
    """`name`: of the file in the message. Returns what was done, empty where the file is whole.

    Raises PipelineError: it is broken in another way."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if is_whole(text):
        return ""
    if text[: len(BEGIN)] not in (BEGIN, BEGIN[: len(text)]) or CONFLICT.search(text):
        raise PipelineError(f"{path} is broken, and not because it was cut off: a merge conflict? Repair it by hand")
    starts = [found.start() for found in ENTRY.finditer(text)]
    kept = next((text[:start] for start in reversed(starts) if is_whole(text[:start])), "")
    broken = tmp / f"{name.replace('/', '-')}.broken"
    broken.write_text(text, encoding="utf-8")
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    new.write_text(kept, encoding="utf-8")
    new.replace(path)
    if not kept:
        path.unlink()
    n_kept = len(ENTRY.findall(kept))
    return (
        f"{name} was cut off: {n_kept} whole entries kept; the others come back from DVC's run-cache, or are run "
        f"again (what was left of it: {broken})"
    )


def is_whole(text: str) -> bool:
    """DVC takes a last output without its md5 (or etag, or files) for a valid one, and fails where it uses it."""
    if (content := valid_lock(text)) is None:
        return False
    stages = content.get("stages", {}).values()
    items = [item for stage in stages for kind in ("deps", "outs") for item in stage.get(kind, [])]
    return all(any(item[key] is not None for key in item.keys() - {"path", "hash"}) for item in items)


def repair_rwlock(path: Path) -> str:
    """DVC's table of who reads and writes which path. Half a file twice in WRITING_SECONDS: nobody is writing it."""
    for wait_seconds in (WRITING_SECONDS, 0):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return ""
        except ValueError:
            time.sleep(wait_seconds)
        else:
            return ""
    path.unlink(missing_ok=True)
    return f"{path.name} was cut off: removed"


def main() -> None:
    if not Path(PIPELINE).exists():
        sys.exit(f"repair: no {PIPELINE} in {Path.cwd()}: run it from the top folder of the project")
    try:
        done = repair()
    except PipelineError as error:
        sys.exit(f"repair: {' '.join(str(error).split())}")
    print("\n".join(done or ["nothing to repair"]))


if __name__ == "__main__":
    main()
