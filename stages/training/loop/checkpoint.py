"""Checkpoints: a training that was stopped or killed goes on where it was, and ends with the bits of one that was not.

They lie outside DVC's outputs, which DVC empties before a run: in .unfreeze/checkpoints, or below $UNFREEZE_HOME; safe
to delete at any time. The name is a hash of all that dvc.yaml says the stage depends on and of the kind of machine, so
that one made of other inputs is never taken.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.runtime.inputs import PIPELINE, inputs_hash, inputs_seen
from stages.runtime.outputs import sync
from stages.runtime.params import Seconds, load
from stages.runtime.state_dir import state_dir
from stages.training.compute.device import Compute

SEAL_BYTES = 64
STALE_SECONDS = 7 * 24 * 3600


class Stateful(Protocol):
    """A network, an optimiser, a schedule, a history: tensors, numbers and texts in dicts and lists."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass
class Place:
    """Where a training is: `batch` batches of `epoch` (0-based, counted through all phases) are done; `last` epochs are
    the end of the `phase`, one call of `fit`."""

    phase: int
    epoch: int
    last: int
    batch: int = 0


class Checkpoint:
    """Of one stage; made before the stage reads anything. `also`: what is kept beside what `fit` itself works on."""

    def __init__(self, stage: str, compute: Compute) -> None:
        self.stage, self.compute = stage, compute
        self.seconds, self.phase = load("checkpoint_seconds", Seconds), 0
        self.also: dict[str, Stateful] = {}
        self.has_begun = False
        folder = state_dir() / "checkpoints"
        # Taken before the contents are read: a file that changes meanwhile, or later, differs from it.
        self.seen = inputs_seen(stage) if PIPELINE.exists() else {}
        self.path = folder / self._name() if PIPELINE.exists() else None
        self.found = self._read()
        self.saved = time.monotonic()

    def is_past(self, phase: int) -> bool:
        """It was done before the training was stopped. Else it is the phase that is saved from now on."""
        self.phase = phase
        self._check_inputs()
        return self.found is not None and phase < self.found["place"]["phase"]

    def resume(self, place: Place, parts: dict[str, Stateful]) -> Place:
        """Put everything back; `place` where there is nothing to go on with."""
        self._check_inputs()
        self.has_begun = True
        found, self.found = self.found, None
        if found is None:
            return place
        for name, part in (parts | self.also).items():
            part.load_state_dict(found["parts"][name])
        torch.set_rng_state(found["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(found["random_cuda"])
        place = Place(**found["place"])
        print(f"goes on in epoch {place.epoch + 1} after {place.batch} batches, from a checkpoint")
        return place

    def is_due(self) -> bool:
        return time.monotonic() - self.saved >= self.seconds

    def _name(self) -> str:
        machine = self.compute.describe() | {"n_devices": str(n_devices())}  # each one has a random state
        return f"{self.stage}-{inputs_hash(self.stage, machine)}.pt"

    def _check_inputs(self) -> None:
        """If an input changes before training begins, it is unknown which version the stage has read.

        The files are hashed once, when the checkpoint is made, and again only where `inputs_seen` differs: who touches
        a file without changing it loses nothing.
        """
        if self.path is None or self.has_begun:
            return
        seen = inputs_seen(self.stage)
        if seen != self.seen and self.path.name != self._name():
            print("no checkpoint: params.yaml or another input changed while the stage was reading")
            self.path = self.found = None
        self.seen = seen

    def save(self, place: Place, parts: dict[str, Stateful]) -> None:
        """A checkpoint that cannot be written is said and does not end the training."""
        self.saved = time.monotonic()
        if self.path is None:
            return
        state = {
            "place": vars(place),
            "parts": {name: part.state_dict() for name, part in (parts | self.also).items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        new = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, new)
            seal(new)
            sync(new)
            new.replace(self.path)
            remove_old(new.parent)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
            print(f"no checkpoint: {self.path} cannot be written: {error}")
        finally:
            new.unlink(missing_ok=True)
        self.saved = time.monotonic()

    def forget(self) -> None:
        """The stage has its outputs."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            found: Any = is_sealed(self.path) and torch.load(self.path, weights_only=True, map_location="cpu")
        except (MemoryError, OSError):  # not its fault
            raise
        except Exception:  # whatever the reader makes of what somebody put there
            found = None
        if isinstance(found, dict):
            return found
        print(f"{self.path} is damaged: training begins anew")
        return None


def n_devices() -> int:
    """CUDA devices that this process sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def seal(path: Path) -> None:
    """The sha256 of a file at its end: torch's reader takes a byte that has flipped for a weight."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(digest.encode())  # in hex: no bytes that a reader of zip files could take for its own


def is_sealed(path: Path) -> bool:
    digest, left = hashlib.sha256(), path.stat().st_size - SEAL_BYTES
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        return file.read() == digest.hexdigest().encode()


def remove_old(folder: Path) -> None:
    """What nobody has gone on with for a week."""
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
