"""Checkpoints: a training that was stopped or killed resumes, and its result is bit-identical to an uninterrupted one.

Checkpoints are written to .unfreeze/checkpoints, or to $UNFREEZE_HOME/checkpoints: not to DVC's outputs, which DVC
empties before a run. They can be deleted at any time. The name of a checkpoint contains a hash of everything that the
stage depends on according to dvc.yaml, and of the kind of machine, so that a checkpoint of other inputs is never used.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from stages.runtime.inputs import DVC_YAML, inputs_hash, inputs_snapshot
from stages.runtime.outputs import sync
from stages.runtime.params import Seconds, load
from stages.runtime.state_dir import state_dir
from stages.training.compute.device import Compute

CHECKSUM_BYTES = 64  # a sha256 in hexadecimal digits
STALE_SECONDS = 7 * 24 * 3600


class Stateful(Protocol):
    """A network, optimiser, schedule or history. Its state is tensors, numbers and strings, in dicts and lists."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Any, /) -> Any: ...


@dataclass
class Position:
    """How far a training is: `batch` batches of epoch `epoch` are done.

    A phase is one call of `fit`; it ends before `end_epoch`. Epochs are 0-based and counted through all phases.
    """

    phase: int
    epoch: int
    end_epoch: int
    batch: int = 0


class Checkpoint:
    """The checkpoint of one stage. Create this object before the stage reads anything.

    `extra_state`: objects that are saved in addition to the objects of `fit`.
    """

    def __init__(self, stage: str, compute: Compute) -> None:
        self.stage, self.compute = stage, compute
        self.seconds, self.phase = load("checkpoint_seconds", Seconds), 0
        self.extra_state: dict[str, Stateful] = {}
        self.has_begun = False
        folder = state_dir() / "checkpoints"
        # The snapshot (sizes and times of the files) is taken before the contents are hashed. So a comparison with a
        # later snapshot also reveals a change during the hashing.
        self.snapshot = inputs_snapshot(stage) if DVC_YAML.exists() else {}
        self.path = folder / self._name() if DVC_YAML.exists() else None
        self.loaded = self._read()
        self.saved_at = time.monotonic()

    def start_phase(self, phase: int) -> bool:
        """Begin `phase`.

        Returns True if the loaded checkpoint belongs to a later phase, so that this one can be skipped.
        """
        self.phase = phase
        self._check_inputs()
        return self.loaded is not None and phase < self.loaded["position"]["phase"]

    def resume(self, position: Position, parts: dict[str, Stateful]) -> Position:
        """Restore all state and return the saved position; without a checkpoint return `position`."""
        self._check_inputs()
        self.has_begun = True
        state, self.loaded = self.loaded, None
        if state is None:
            if self.path is not None and any(path != self.path for path in self.path.parent.glob(f"{self.stage}-*.pt")):
                print(
                    "training starts from the beginning: the checkpoint of an interrupted run was made with other "
                    "params, data, code or hardware, or with another number of threads"
                )
            return position
        for name, part in (parts | self.extra_state).items():
            part.load_state_dict(state["parts"][name])
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["random_cuda"])
        position = Position(**state["position"])
        print(f"resuming from a checkpoint: epoch {position.epoch + 1}, after {position.batch} batches")
        return position

    def is_due(self) -> bool:
        return time.monotonic() - self.saved_at >= self.seconds

    def _name(self) -> str:
        # The name also contains the number of GPUs, because a checkpoint holds one random-generator state for each.
        machine = self.compute.describe() | {"n_gpus": str(n_gpus())}
        return f"{self.stage}-{inputs_hash(self.stage, machine)}.pt"

    def _check_inputs(self) -> None:
        """Drop the checkpoint if an input changed before training began: the stage may have read either version.

        The files are hashed when this object is created, and again only if `inputs_snapshot` differs. A file whose
        modification time changes but not its content does not drop the checkpoint.
        """
        if self.path is None or self.has_begun:
            return
        snapshot = inputs_snapshot(self.stage)
        if snapshot != self.snapshot and self.path.name != self._name():
            print("no checkpoint will be saved: params.yaml or another input changed while the stage was reading")
            self.path = self.loaded = None
        self.snapshot = snapshot

    def save(self, position: Position, parts: dict[str, Stateful]) -> None:
        """Write the checkpoint atomically. A failure is printed and does not end the training."""
        self.saved_at = time.monotonic()
        if self.path is None:
            return
        state = {
            "position": vars(position),
            "parts": {name: part.state_dict() for name, part in (parts | self.extra_state).items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        new = self.path.with_suffix(f".{os.getpid()}.tmp")
        try:
            new.parent.mkdir(parents=True, exist_ok=True)
            torch.save(state, new)
            append_checksum(new)
            sync(new)
            new.replace(self.path)
            remove_old(new.parent)
        except (OSError, RuntimeError) as error:  # torch raises RuntimeError if the disk is full
            print(f"no checkpoint was saved: {self.path} cannot be written: {error}")
        finally:
            new.unlink(missing_ok=True)
        self.saved_at = time.monotonic()

    def delete(self) -> None:
        """Delete the checkpoint, which is not needed once the stage has written its outputs."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _read(self) -> dict[str, Any] | None:
        if self.path is None or not self.path.exists():
            return None
        try:
            state: Any = has_valid_checksum(self.path) and torch.load(self.path, weights_only=True, map_location="cpu")
        except (MemoryError, OSError):  # these do not mean that the file is damaged
            raise
        except Exception:  # torch.load raises many types on invalid files
            state = None
        if isinstance(state, dict):
            return state
        print(f"{self.path} is damaged: training starts from the beginning")
        return None


def n_gpus() -> int:
    """Returns the number of CUDA devices that this process sees."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def append_checksum(path: Path) -> None:
    """Append the file's sha256 to the file, because `torch.load` does not notice a flipped byte in a weight."""
    with path.open("r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        # torch.load reads a zip file from its end: it searches for a signature that hexadecimal digits do not contain.
        file.write(digest.encode())


def has_valid_checksum(path: Path) -> bool:
    """Returns True if the file's last `CHECKSUM_BYTES` bytes are the sha256 of all bytes before them."""
    digest, left = hashlib.sha256(), path.stat().st_size - CHECKSUM_BYTES
    with path.open("rb") as file:
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
        return file.read() == digest.hexdigest().encode()


def remove_old(folder: Path) -> None:
    """Delete checkpoints that have not been written for a week."""
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < time.time() - STALE_SECONDS:
                path.unlink()
        except FileNotFoundError:
            continue
