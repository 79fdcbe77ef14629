"""After a kill: what DVC had half written is mended: `python -m flows.mend`. A run does it by itself.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. Killed in that moment it leaves half a file, and every command after
that refuses to work. The whole entries of dvc.lock are kept; the others come back from DVC's run-cache.
"""

import json
import os
import re
import sys
import time
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import parse_yaml
from voluptuous import Invalid

from flows.graph import PIPELINE, PipelineError, open_repo
from flows.lock import LOCK

ENTRY = re.compile(r"^  \S.*:$", re.MULTILINE)  # a stage's first line
BEGIN = "schema: '2.0'"
CONFLICT = re.compile(r"^(<{7}|={7}|>{7})", re.MULTILINE)
WRITING_SECONDS = 0.3  # longer than DVC takes to write its few kB


def mend() -> list[str]:
    """What was mended, in words. Waits for a DVC that is at work here."""
    repo = open_repo(wait_for_lock=True)
    root = Path(repo.root_dir)
    tmp = Path(repo.tmp_dir or root / ".dvc/tmp")
    with repo.lock:
        said = [mend_lock(path, tmp) for folder in (root, root / "data") if (path := folder / LOCK).exists()]
    said.append(mend_rwlock(tmp / "rwlock"))
    return [one for one in said if one]


def mend_lock(path: Path, tmp: Path) -> str:
    text = path.read_text(errors="replace", encoding="utf-8")
    if is_whole(text):
        return ""
    if text[: len(BEGIN)] not in (BEGIN, BEGIN[: len(text)]) or CONFLICT.search(text):
        raise PipelineError(f"{path} is broken, and not because it was cut off: a merge conflict? Mend it by hand")
    starts = [found.start() for found in ENTRY.finditer(text)]
    kept = next((text[:start] for start in reversed(starts) if is_whole(text[:start])), "")
    (tmp / f"{path.name}.broken").write_text(text, encoding="utf-8")
    new = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    new.write_text(kept, encoding="utf-8")
    new.replace(path)
    if not kept:
        path.unlink()
    n_kept = len(ENTRY.findall(kept))
    return (
        f"{path.name} was cut off: {n_kept} whole entries kept; the others come back from DVC's run-cache, or are run "
        f"again (what was left of it: {tmp / path.name}.broken)"
    )


def is_whole(text: str) -> bool:
    """DVC takes a last output without its md5 (or etag, or files) for a valid one, and fails where it uses it."""
    try:
        stages = COMPILED_LOCKFILE_SCHEMA(parse_yaml(text, LOCK)).get("stages", {}).values()
    except (DvcException, Invalid):
        return False
    items = [item for stage in stages for kind in ("deps", "outs") for item in stage.get(kind, [])]
    return all(any(item[key] is not None for key in item.keys() - {"path", "hash"}) for item in items)


def mend_rwlock(path: Path) -> str:
    """Half-written twice, and not because somebody is writing: nobody who is alive counts on it."""
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
        sys.exit(f"mend: no {PIPELINE} in {Path.cwd()}: run it from the top folder of the project")
    try:
        said = mend()
    except PipelineError as error:
        sys.exit(f"mend: {' '.join(str(error).split())}")
    print("\n".join(said or ["nothing to mend"]))


if __name__ == "__main__":
    main()
