"""Stamps: by which a variant knows that a stage has run on these inputs, and that its outputs still stand."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from stages.runtime.inputs import files

FOLDER = Path(".unfreeze/stamps")


class Stamp:
    """Of one stage, in the current folder."""

    def __init__(self, stage: str, outs: Sequence[str]) -> None:
        self.path, self.outs = FOLDER / f"{stage}.json", outs

    def holds(self, inputs: str) -> bool:
        try:
            found = json.loads(self.path.read_text())
            return bool(found == self._seen(inputs))
        except (OSError, ValueError):
            return False

    def set(self, inputs: str) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self._seen(inputs), indent=2) + "\n")

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def _seen(self, inputs: str) -> dict[str, str]:
        """Raises OSError: an output is not there."""
        seen = {"inputs": inputs}
        for path in (path for out in self.outs for path in files(Path(out))):
            with path.open("rb") as file:
                seen[str(path)] = hashlib.file_digest(file, "sha256").hexdigest()
        return seen
