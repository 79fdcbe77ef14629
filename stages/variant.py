"""variant: the pipeline once more with some params changed, in a folder of its own: `variant OUT key=value ...`.

In:   dvc.yaml, params.yaml, and in data/ what the stages that no changed key touches have made: it is linked, not made
Out:  OUT/{valid,test}.parquet of tta, OUT/{metrics.json,steps.csv} of evaluate,
      OUT/variant.json (changed: the keys and their values; parameters: of the network)
      Below .unfreeze/variants/OUT the stages' own outputs, receipts in .unfreeze/receipts there, and a stamp a stage:
      one whose deps and params are as they were is not run again. May be deleted at any time.
Recipe: the course's five folds, and its comparison of architectures.
"""

import fcntl
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager
from math import prod
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from safetensors import safe_open

from stages.runtime import receipt, signals
from stages.runtime.errors import StageError
from stages.runtime.graph import needs, outs_of, touched
from stages.runtime.inputs import PIPELINE, inputs_hash, stages_of
from stages.runtime.outputs import outputs
from stages.runtime.params import PARAMS, Seed, load, parse
from stages.runtime.stage import run
from stages.runtime.stamps import Stamp
from stages.runtime.state_dir import state_dir
from stages.training.compute.device import Compute, DeviceParams, compute_on

WORK = Path(".unfreeze/variants")
OURS = [Path("stages"), Path("flows"), Path(".unfreeze"), Path(".git"), Path(".dvc")]
WANTED = ("data/tta/valid.parquet", "data/tta/test.parquet", "data/evaluate/metrics.json", "data/evaluate/steps.csv")
MODEL = Path("data/train_full/model.safetensors")
PATHS = ("ingest.path", "backbone.weights_file")  # params that name files, seen from the folder that a stage runs in
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def main() -> None:
    out, changes = read_arguments(sys.argv[1:])
    remembered = state_dir().absolute()
    stages, folder = stages_of(), WORK / out
    check_is_free(out, stages)
    names = touched(stages, changes)
    params = changed_params(parse(PARAMS), changes, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with alone_in(folder):
        lay_out(folder, stages, names, params)
        with chdir(folder):
            compute = compute_on(load("device", DeviceParams), load("seed", Seed))
            ran = [name for name in names if bring_up_to_date(name, stages[name], compute, remembered)]
        print(f"{out}: ran {', '.join(ran) or 'nothing'}; receipts in {folder / receipt.folder()}")
        about = {"changed": dict(sorted(changes.items())), "parameters": n_parameters(folder / MODEL)}
        with outputs(out) as staging:
            for wanted in WANTED:
                shutil.copyfile(folder / wanted, staging / Path(wanted).name)
            (staging / "variant.json").write_text(json.dumps(about, indent=2) + "\n")
        said = json.loads((out / "metrics.json").read_text())
        print(
            ", ".join(f"{name} {said[name]:.4f}" for name in ("accuracy", "log_loss", "accuracy_tta", "log_loss_tta"))
        )


def check_is_free(out: Path, stages: dict[str, Any]) -> None:
    """Raises StageError: something else is, or will be, there; or a variant in a variant."""
    taken = [Path(one) for declared in stages.values() for one in [*outs_of(declared), *declared["deps"]]]
    taken += [Path(one).parent for declared in stages.values() for one in outs_of(declared)]
    taken = [one for one in taken if one != Path("data")] + OURS
    inside = [one for one in (WORK / out).parents if (one / PARAMS).exists() and one != Path()]
    if len(out.parts) < 2 or inside or any(out.is_relative_to(one) or one.is_relative_to(out) for one in taken):
        raise StageError(f"{out} is not free for a variant: name a new folder below data/, as data/mine/a")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Raises StageError: another run is at work there, with params of its own perhaps."""
    file = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StageError(f"another run is at work in {folder}: wait for its end, or name another folder") from None
    finally:
        os.close(file)


def read_arguments(arguments: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """(OUT, {dotted key: value}). Raises StageError."""
    out, *pairs = [*arguments, *([] if arguments else [""])]
    path = Path(out)
    if not out or path.is_absolute() or ".." in path.parts or not pairs or not all("=" in pair for pair in pairs):
        raise StageError("expected a folder below this one, then key=value, as `data/folds/0 split.cv_idx=0`")
    try:
        return path, {key: YAML(typ="safe").load(text) for key, _, text in (pair.partition("=") for pair in pairs)}
    except YAMLError as error:
        raise StageError(f"one of {' '.join(pairs)} has no value of YAML: {error}") from None


def changed_params(params: Any, changes: dict[str, Any], folder: Path) -> Any:
    """`params` with the changes, and with paths as seen from `folder`. Raises StageError: no such key."""
    for key, value in changes.items():
        *sections, last = key.split(".")
        section = params
        for name in sections:
            section = section.get(name, {}) if isinstance(section, dict) else {}
        if not isinstance(section, dict) or last not in section:
            raise StageError(f"{PARAMS} has no key {key}: mend its spelling, or add it there")
        section[last] = value
    for key in PATHS:
        section, name = params[key.split(".")[0]], key.split(".")[1]
        if section.get(name) is not None and not Path(section[name]).is_absolute():
            section[name] = os.path.relpath(section[name], folder)
    return params


def lay_out(folder: Path, stages: dict[str, Any], names: Sequence[str], params: Any) -> None:
    """Links to what is read, and room for what is made."""
    with (folder / PARAMS).open("w") as file:
        YAML(typ="rt").dump(params, file)
    made = {out for name in names for out in outs_of(stages[name])}
    for out in made:
        if (folder / out).is_symlink():  # of a time when another key was changed
            (folder / out).unlink()
    for name in ["stages", str(PIPELINE), *sorted(needs(stages, names) - made)]:
        link(folder / name, Path(name))


def link(here: Path, there: Path) -> None:
    if here.is_symlink() or here.is_file():
        here.unlink()
    elif here.is_dir():
        shutil.rmtree(here)
    here.parent.mkdir(parents=True, exist_ok=True)
    here.symlink_to(os.path.relpath(there, here.parent))


def bring_up_to_date(name: str, declared: dict[str, Any], compute: Compute, remembered: Path) -> bool:
    """In the current folder; whether it had to run. Raises StageError, Stopped; SystemExit with the stage's code."""
    stamp, inputs = Stamp(name, outs_of(declared)), inputs_hash(name, compute.describe())
    if stamp.holds(inputs):
        print(f"'{name}' did not change")
        return False
    print(f"running '{name}'", flush=True)
    stamp.forget()
    run_stage(name, shlex.split(declared["cmd"]), remembered)
    if inputs_hash(name, compute.describe()) == inputs:  # else somebody changed the code while it ran
        stamp.set(inputs)
    signals.check()
    return True


def run_stage(name: str, command: Sequence[str], remembered: Path) -> None:
    """To its end; asked to stop, we ask it to and wait until it has kept its checkpoint."""
    environment = os.environ | {"UNFREEZE_HOME": str(remembered), "DVC_STAGE": name}  # it stops where we are killed
    command = [sys.executable, *command[1:]] if command[0] == "python" else command
    process = subprocess.Popen(command, env=environment)  # noqa: S603 (dvc.yaml's own)
    try:
        while process.poll() is None:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                signals.check()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if process.returncode == signals.EXIT_CODE:
        raise signals.Stopped
    if process.returncode < 0:
        raise StageError(f"stage {name} was killed by signal {-process.returncode} in {Path.cwd()}: run it again")
    if process.returncode:
        sys.exit(process.returncode)  # it has said why


def n_parameters(model: Path) -> int:
    """Of a model file, without the statistics of BatchNorms."""
    with safe_open(model, "np") as file:
        return sum(prod(file.get_slice(key).get_shape()) for key in file.keys() if not key.endswith(STATISTICS))  # noqa: SIM118


if __name__ == "__main__":
    run(main, with_arguments=True)
