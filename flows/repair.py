"""Repairs files that DVC was writing when it was killed: `python -m flows.repair`. Every run starts with this repair.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. If it is killed while it writes, half a file is left, and every later
DVC command fails. The repair keeps the complete entries of a dvc.lock; DVC restores the other entries from its
run-cache.
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

ENTRY = re.compile(r"^  \S.*:$", re.MULTILINE)  # the first line of a stage's entry
FIRST_LINE = "schema: '2.0'"
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)
WRITING_SECONDS = 0.3  # DVC takes less time to write a file


def repair() -> list[str]:
    """Returns a message for each repaired file. It waits until no DVC command is running in this clone."""
    repo = open_repo(wait_for_lock=True)
    root = Path(repo.root_dir)
    tmp = Path(repo.tmp_dir or root / ".dvc/tmp")
    locks = lock_file.paths(repo)
    with repo.lock:
        messages = [repair_lock(path, tmp, path.relative_to(root).as_posix()) for path in locks if path.exists()]
    messages.append(repair_rwlock(tmp / "rwlock"))
    return [message for message in messages if message]


def repair_lock(path: Path, tmp: Path, name: str) -> str:
    """Returns a message about the repair; an empty text if the file is complete. `name`: the file in the message.

    Raises PipelineError if the file is broken in another way than cut off.
    """
    text = path.read_text(encoding="utf-8", errors="replace")
    if is_complete(text):
        return ""
    if text[: len(FIRST_LINE)] not in (FIRST_LINE, FIRST_LINE[: len(text)]) or CONFLICT.search(text):
        raise PipelineError(f"{path} is broken, but not cut off. It may have a merge conflict. Repair it by hand")
    starts = [match.start() for match in ENTRY.finditer(text)]
    kept_text = next((text[:start] for start in reversed(starts) if is_complete(text[:start])), "")
    broken = tmp / f"{name.replace('/', '-')}.broken"
    broken.write_text(text, encoding="utf-8")
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    new.write_text(kept_text, encoding="utf-8")
    new.replace(path)
    if not kept_text:
        path.unlink()
    n_kept = len(ENTRY.findall(kept_text))
    return (
        f"{name} was cut off: {n_kept} complete entries were kept. The other stages come back from DVC's run-cache, or "
        f"run again. A copy of the broken file: {broken}"
    )


def is_complete(text: str) -> bool:
    """Returns True if the text is a complete dvc.lock. DVC accepts a last output without its md5 (or etag, or files),
    but fails later when it uses that output."""
    if (content := valid_lock(text)) is None:
        return False
    stages = content.get("stages", {}).values()
    items = [item for stage in stages for kind in ("deps", "outs") for item in stage.get(kind, [])]
    return all(any(item[key] is not None for key in item.keys() - {"path", "hash"}) for item in items)


def repair_rwlock(path: Path) -> str:
    """Deletes a broken rwlock, DVC's table of which process reads and writes which path. Returns a message, or an empty
    text. If the file is still broken after WRITING_SECONDS, no process is writing it."""
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
    return f"{path.name} was cut off and has been deleted"


def main() -> None:
    if not Path(PIPELINE).exists():
        sys.exit(f"repair: no {PIPELINE} in {Path.cwd()}: run the command in the top folder of the project")
    try:
        messages = repair()
    except PipelineError as error:
        sys.exit(f"repair: {' '.join(str(error).split())}")
    print("\n".join(messages or ["nothing to repair"]))


if __name__ == "__main__":
    main()
