"""Checkpoints: a training that was stopped or killed resumes, and its result is bit-identical to an uninterrupted one.

They lie outside DVC's outputs, which DVC empties before a run: in .unfreeze/checkpoints, or below $UNFREEZE_HOME; safe
to delete at any time. The name contains a hash of everything that dvc.yaml says the stage depends on and of the kind of
machine, so that a checkpoint of other inputs is never used.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.runtime.inputs import PIPELINE, inputs_hash, inputs_snapshot
from stages.runtime.outputs import sync
from stages.runtime.params import Seconds, load
from stages.runtime.state_dir import state_dir
from stages.training.compute.device import Compute

SEAL_BYTES = 64
STALE_SECONDS = 7 * 24 * 3600


class Stateful(Protocol):
    """A network, optimiser, schedule or history. Its state: tensors, numbers and strings in dicts and lists."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass
class Position:
    """How far a training is: `batch` batches of `epoch` (0-based, counted through all phases) are done. A `phase` is a
    call of `fit`; it ends after `last` epochs."""

    phase: int
    epoch: int
    last: int
    batch: int = 0


class Checkpoint:
    """The checkpoint of one stage; create it before the stage reads anything. `extra_state`: objects that are saved in
    addition to those of `fit`."""

    def __init__(self, stage: str, compute: Compute) -> None:
        self.stage, self.compute = stage, compute
        self.seconds, self.phase = load("checkpoint_seconds", Seconds), 0
        self.extra_state: dict[str, Stateful] = {}
        self.has_begun = False
        folder = state_dir() / "checkpoints"
        # Taken before the contents are hashed, so that it also shows changes during the hashing.
        self.snapshot = inputs_snapshot(stage) if PIPELINE.exists() else {}
        self.path = folder / self._name() if PIPELINE.exists() else None
        self.loaded = self._read()
        self.saved = time.monotonic()

    def is_past(self, phase: int) -> bool:
        """Whether the loaded checkpoint is past this phase. If not, this is the phase that is saved from now on."""
        self.phase = phase
        self._check_inputs()
        return self.loaded is not None and phase < self.loaded["place"]["phase"]

    def resume(self, position: Position, parts: dict[str, Stateful]) -> Position:
        """Restore all state and return the saved position; without a checkpoint return `position`."""
        self._check_inputs()
        self.has_begun = True
        state, self.loaded = self.loaded, None
        if state is None:
            return position
        for name, part in (parts | self.extra_state).items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        position = Position(**state["place"])
        print(f"goes on in epoch {position.epoch + 1} after {position.batch} batches, from a checkpoint")
        return position

    def is_due(self) -> bool:
        return time.monotonic() - self.saved >= self.seconds

    def _name(self) -> str:
        # The checkpoint holds one random state per device.
        machine = self.compute.describe() | {"n_devices": str(n_devices())}
        return f"{self.stage}-{inputs_hash(self.stage, machine)}.pt"

    def _check_inputs(self) -> None:
        """Drop the checkpoint if an input changed before training: it is unknown which version the stage has read.

        The files are hashed once, when the checkpoint is made, and again only if `inputs_snapshot` differs: touching a
        file without changing it loses nothing.
        """
        if self.path is None or self.has_begun:
            return
        snapshot = inputs_snapshot(self.stage)
        if snapshot != self.snapshot and self.path.name != self._name():
            print("no checkpoint: params.yaml or another input changed while the stage was reading")
            self.path = self.loaded = None
        self.snapshot = snapshot

    def save(self, position: Position, parts: dict[str, Stateful]) -> None:
        """Write the checkpoint atomically. A failure is printed and does not end the training."""
        self.saved = time.monotonic()
        if self.path is None:
            return
        state = {
            "place": vars(position),
            "parts": {name: part.state_dict() for name, part in (parts | self.extra_state).items()},
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
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            print(f"no checkpoint: {self.path} cannot be written: {error}")
        finally:
            new.unlink(missing_ok=True)
        self.saved = time.monotonic()

    def forget(self) -> None:
        """Delete the checkpoint: the stage has its outputs."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            state: Any = is_sealed(self.path) and torch.load(self.path, weights_only=True, map_location="cpu")
        except (MemoryError, OSError):  # the file is not to blame
            raise
        except Exception:  # torch.load raises many types on invalid files
            state = None
        if isinstance(state, dict):
            return state
        print(f"{self.path} is damaged: training begins anew")
        return None


def n_devices() -> int:
    """CUDA devices that this process sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def seal(path: Path) -> None:
    """Append the file's sha256 to it: torch's reader does not notice a flipped byte in a weight."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(digest.encode())  # hex digits cannot be mistaken for a zip record


def is_sealed(path: Path) -> bool:
    """Whether the file ends with the sha256 of what stands before."""
    digest, left = hashlib.sha256(), path.stat().st_size - SEAL_BYTES
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        return file.read() == digest.hexdigest().encode()


def remove_old(folder: Path) -> None:
    """Delete checkpoints that were not written to for a week."""
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
