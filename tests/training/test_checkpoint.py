"""A training that is stopped anywhere and goes on ends with the same bits as one that is not."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from stages.runtime import signals
from stages.runtime.inputs import inputs_hash
from stages.training.compute.batches import Batch
from stages.training.compute.device import Compute
from stages.training.loop import checkpoint
from stages.training.loop.best_weights import BestWeights
from stages.training.loop.checkpoint import Checkpoint, Position, Stateful, append_checksum
from stages.training.loop.fit import fit
from stages.training.loop.history import History
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.schedule import ScheduleParams, make_schedule
from tests.models.test_network import CPU, TASK
from tests.training.test_fit import TensorFeed

N_BATCHES, EPOCHS = 3, 2  # of each of two phases
PIPELINE = "stages:\n  toy:\n    deps: [dep.txt]\n    params: [seed]\n"
PARAMS = "seed: {seed}\ncheckpoint_seconds: {seconds}\n"
SCHEDULES = {
    "sgdr": ScheduleParams(schedule="sgdr", n_cycles=2, cycle_len=1, cycle_mult=1, hold_pct=0.0),
    "one_cycle": ScheduleParams(schedule="one_cycle", n_cycles=1, cycle_len=EPOCHS, cycle_mult=1, hold_pct=0.0),
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNFREEZE_HOME", raising=False)
    (tmp_path / "dvc.yaml").write_text(PIPELINE, encoding="utf-8")
    (tmp_path / "dep.txt").write_text("content", encoding="utf-8")
    write_params()
    return tmp_path


def write_params(seed: int = 1, seconds: float = 1000) -> None:
    Path("params.yaml").write_text(PARAMS.format(seed=seed, seconds=seconds), encoding="utf-8")


class StoppingFeed(TensorFeed):
    """Asks to stop before the batch that is number `at` of all that are asked for, those of looks counted too."""

    def __init__(self, at: int | None = None) -> None:
        super().__init__()
        self.at = at

    def _batches(self, order: object) -> Iterator[Batch]:
        for batch in super()._batches(order):  # type: ignore[arg-type]
            if self.at is not None:
                if self.at == 0:
                    raise signals.Stopped
                self.at -= 1
            yield batch


def small_network() -> nn.Module:
    """With what has a state of its own: BatchNorm, and dropout, which draws from torch's global generator."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5),
            nn.Linear(8, 3),
        )  # fmt: skip


def train(
    optimizer_name: str, schedule: str, feed: TensorFeed, compute: Compute = CPU
) -> tuple[dict[str, torch.Tensor], History]:
    """Two phases with `BestWeights`, as in train_full."""
    torch.manual_seed(5)
    model, history = CPU.to_device(small_network()), History()
    best_weights = BestWeights(model, "best", {1, 2, 3, 4}, history)
    saved = Checkpoint("toy", compute)
    saved.extra_state["keeper"] = best_weights
    params = OptimizerParams.model_validate({"name": optimizer_name, "momentum": 0.9, "weight_decay": 0.01})
    for phase in range(2):
        if saved.start_phase(phase):
            continue
        optimizer = make_optimizer(params, [list(model.parameters())], [0.01])
        scheduled = make_schedule(SCHEDULES[schedule], N_BATCHES)
        fit(model, feed, feed, TASK, optimizer, scheduled, EPOCHS, compute, False, 0.1, history, best_weights, saved)
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    best_weights.restore()
    saved.delete()
    return last | {f"kept {name}": tensor for name, tensor in model.state_dict().items()}, history


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [
        ("adamw", "sgdr"),
        pytest.param("adamw", "one_cycle", marks=pytest.mark.slow),
        pytest.param("sgd", "sgdr", marks=pytest.mark.slow),
        pytest.param("sgd", "one_cycle", marks=pytest.mark.slow),
    ],
)
def test_wherever_it_is_stopped_it_ends_with_the_same_bits(optimizer: str, schedule: str) -> None:
    expected, history = train(optimizer, schedule, TensorFeed())
    n_asked = 2 * EPOCHS * 2 * N_BATCHES  # each epoch's batches, and as many to look at valid
    for at in range(n_asked):
        with pytest.raises(signals.Stopped):
            train(optimizer, schedule, StoppingFeed(at))
        went_on, history_on = train(optimizer, schedule, TensorFeed())
        assert history_on == history, at
        assert all(torch.equal(went_on[name], tensor) for name, tensor in expected.items()), at
        assert not list(Path(".unfreeze/checkpoints").iterdir())


def test_twice_stopped_and_nothing_is_done_twice() -> None:
    expected, history = train("adamw", "sgdr", TensorFeed())
    for at in (4, 5):  # in the first epoch's look; four batches and a look later
        with pytest.raises(signals.Stopped):
            train("adamw", "sgdr", StoppingFeed(at))
    counting = StoppingFeed(1000)
    went_on, history_on = train("adamw", "sgdr", counting)
    assert history_on == history
    assert all(torch.equal(went_on[name], tensor) for name, tensor in expected.items())
    n_train, n_looks = 2 * EPOCHS * N_BATCHES, 2 * EPOCHS * N_BATCHES
    assert counting.at == 1000 - (n_train + n_looks - 8)  # 3 + 3 of epoch 1, and 2 of epoch 2, were done before


@pytest.mark.parametrize("change", ["seed", "dep", "other machine"])
def test_one_of_other_inputs_is_never_taken(
    change: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(signals.Stopped):
        train("adamw", "sgdr", StoppingFeed(10))
    before = Checkpoint("toy", CPU)
    assert before.loaded is not None
    if change == "seed":
        write_params(seed=2)
    elif change == "dep":
        Path("dep.txt").write_text("other", encoding="utf-8")
    else:
        monkeypatch.setattr(type(CPU), "describe", lambda _: {"chip": "another"})
    after = Checkpoint("toy", CPU)
    assert after.loaded is None
    assert after.path != before.path
    start = Position(0, 0, 1)
    assert after.resume(start, {}) is start
    assert capsys.readouterr().out.endswith(
        "training starts from the beginning: the checkpoint of an interrupted run was made with other params, data, "
        "code or hardware, or with another number of threads\n"
    )


def test_how_often_it_is_written_is_no_input() -> None:
    with pytest.raises(signals.Stopped):
        train("adamw", "sgdr", StoppingFeed(10))
    write_params(seconds=7)
    assert Checkpoint("toy", CPU).loaded is not None


def test_it_is_written_as_often_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    positions: list[tuple[int, int, int]] = []
    clock = [0.0]
    save = Checkpoint.save

    def noted(self: Checkpoint, position: Position, parts: dict[str, Stateful]) -> None:
        positions.append((position.phase, position.epoch, position.batch))
        save(self, position, parts)

    class TickingFeed(TensorFeed):
        def epoch(self, epoch: int, done: int = 0) -> Iterator[Batch]:
            for batch in super().epoch(epoch, done):
                clock[0] += 1
                yield batch

    monkeypatch.setattr(Checkpoint, "save", noted)
    monkeypatch.setattr("stages.training.loop.checkpoint.time.monotonic", lambda: clock[0])
    at_ends = [(0, EPOCHS, 0), (1, 2 * EPOCHS, 0)]
    write_params(seconds=1000)
    train("adamw", "sgdr", TickingFeed())
    assert positions == at_ends
    positions.clear()
    write_params(seconds=2)
    train("adamw", "sgdr", TickingFeed())  # a batch a second; after the end of a phase two seconds begin anew
    assert positions == [(0, 0, 2), (0, 1, 1), (0, 1, 3), at_ends[0], (1, 2, 2), (1, 3, 1), (1, 3, 3), at_ends[1]]


@pytest.mark.parametrize("damage", ["cut off", "a byte flipped", "a pickle", "empty"])
def test_with_a_damaged_one_training_begins_anew(
    damage: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    expected, history = train("adamw", "sgdr", TensorFeed())
    with pytest.raises(signals.Stopped):
        train("adamw", "sgdr", StoppingFeed(10))
    path = next(Path(".unfreeze/checkpoints").glob("toy-*.pt"))
    data = bytearray(path.read_bytes())
    if damage == "a byte flipped":
        data[len(data) // 2] ^= 255
    contents: dict[str, bytes | bytearray] = {
        "cut off": data[:-100],
        "a byte flipped": data,
        "empty": b"",
        "a pickle": hostile(tmp_path / "made"),
    }
    path.write_bytes(contents[damage])
    if damage == "a pickle":
        append_checksum(path)
    went_on, history_on = train("adamw", "sgdr", TensorFeed())
    assert "is damaged: training starts from the beginning" in capsys.readouterr().out
    assert not (tmp_path / "made").exists()
    assert history_on == history
    assert all(torch.equal(went_on[name], tensor) for name, tensor in expected.items())


def hostile(made: Path) -> bytes:
    """A pickle that would make a file if it were loaded."""
    return f"cos\nsystem\n(S'touch {made}'\ntR.".encode()


def test_where_it_cannot_be_written_training_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, history = train("adamw", "sgdr", TensorFeed())
    write_params(seconds=1e-9)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    _, history_on = train("adamw", "sgdr", TensorFeed())
    assert "no checkpoint was saved: .unfreeze/checkpoints/toy-" in capsys.readouterr().out
    assert history_on == history
    assert not list(Path(".unfreeze/checkpoints").iterdir())


def test_without_a_pipeline_there_are_none() -> None:
    Path("dvc.yaml").unlink()
    saved = Checkpoint("toy", CPU)
    saved.save(Position(0, 0, 1), {})
    assert not Path(".unfreeze").exists()


def test_inputs_that_change_while_the_stage_reads_them_are_nobodys(capsys: pytest.CaptureFixture[str]) -> None:
    saved, here = Checkpoint("toy", CPU), Position(0, 0, 1)
    write_params(seed=2)
    saved.save(saved.resume(here, {}), {})
    assert "another input changed while the stage was reading" in capsys.readouterr().out
    assert not list(Path().glob(".unfreeze/checkpoints/*"))


def test_who_edits_params_during_a_training_loses_no_checkpoint() -> None:
    saved, here = Checkpoint("toy", CPU), Position(0, 0, 1)
    saved.resume(here, {})
    write_params(seed=2)
    assert not saved.start_phase(1)
    saved.save(here, {})
    write_params(seed=1)
    assert Checkpoint("toy", CPU).loaded is not None


def test_nobody_goes_on_where_inputs_change_while_the_stage_reads_them(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(signals.Stopped):
        train("adamw", "sgdr", StoppingFeed(20))
    saved = Checkpoint("toy", CPU)
    assert saved.loaded is not None
    write_params(seed=2)
    assert not saved.start_phase(0)
    here = Position(0, 0, 1)
    assert saved.resume(here, {}) is here
    assert "another input changed" in capsys.readouterr().out


def test_without_memory_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(signals.Stopped):
        train("adamw", "sgdr", StoppingFeed(10))

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", full)
        with pytest.raises(MemoryError):
            Checkpoint("toy", CPU)
    assert Checkpoint("toy", CPU).loaded is not None


def test_float16_goes_on_with_the_scale_of_its_loss() -> None:
    compute = Compute(torch.device("cpu"), torch.float16)
    expected, history = train("adamw", "sgdr", TensorFeed(), compute)
    for at in (2, 8, 14):
        with pytest.raises(signals.Stopped):
            train("adamw", "sgdr", StoppingFeed(at), compute)
        went_on, history_on = train("adamw", "sgdr", TensorFeed(), compute)
        assert history_on == history
        assert all(torch.equal(went_on[name], tensor) for name, tensor in expected.items())


def test_with_fewer_gpus_training_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for a machine with two GPUs, of which one is taken away."""
    states = [torch.zeros(16, dtype=torch.uint8)] * 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    saved = Checkpoint("toy", CPU)
    saved.save(saved.resume(Position(0, 0, 1), {}), {})
    assert Checkpoint("toy", CPU).loaded is not None
    states.pop()
    here = Position(0, 0, 1)
    fewer = Checkpoint("toy", CPU)
    assert fewer.loaded is None
    assert fewer.resume(here, {}) is here


def test_inputs_are_hashed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []

    def counted(stage: str, machine: dict[str, str]) -> str:
        hashed.append(stage)
        return inputs_hash(stage, machine)

    monkeypatch.setattr(checkpoint, "inputs_hash", counted)
    train("adamw", "sgdr", TensorFeed())
    assert hashed == ["toy"]


@pytest.mark.parametrize("change", ["same size", "same size and time", "another file", "one more"])
def test_an_input_that_changes_while_it_is_read_is_noticed(
    change: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "dvc.yaml").write_text("stages:\n  toy:\n    deps: [deps]\n", encoding="utf-8")
    dep = folder / "deps/one.txt"
    dep.parent.mkdir()
    dep.write_text("content", encoding="utf-8")
    saved, times = Checkpoint("toy", CPU), dep.stat()
    if change == "another file":
        (folder / "new").write_text("c0ntent", encoding="utf-8")
        os.utime(folder / "new", ns=(times.st_atime_ns, times.st_mtime_ns))
        (folder / "new").replace(dep)
    elif change == "one more":
        (dep.parent / "two.txt").write_text("", encoding="utf-8")
    else:
        dep.write_text("c0ntent", encoding="utf-8")
        if change == "same size and time":
            os.utime(dep, ns=(times.st_atime_ns, times.st_mtime_ns))
    saved.save(saved.resume(Position(0, 0, 1), {}), {})
    assert "another input changed while the stage was reading" in capsys.readouterr().out
    assert not list(folder.glob(".unfreeze/checkpoints/*"))


def test_who_touches_an_input_loses_no_checkpoint(folder: Path) -> None:
    saved = Checkpoint("toy", CPU)
    os.utime(folder / "dep.txt", ns=(1, 1))
    assert not saved.start_phase(0)
    saved.save(saved.resume(Position(0, 0, 1), {}), {})
    assert Checkpoint("toy", CPU).loaded is not None
