"""Importing a stage takes nothing of torch away, and does not load its compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNEXECUTED = "from types import ModuleType; assert type(sys.modules['torch._dynamo']) is not ModuleType"
PROGRAMS = {
    "deterministic algorithms": """
torch.use_deterministic_algorithms(True)
assert torch.zeros(3).index_add(0, torch.tensor([1, 1]), torch.ones(2)).tolist() == [0, 2, 0]
""",
    "distributed data parallel": """
from torch import distributed
from torch.nn.parallel import DistributedDataParallel
distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/store", rank=0, world_size=1)
model = DistributedDataParallel(torch.nn.Linear(2, 1, bias=False))
model(torch.tensor([[3.0, 5.0]])).sum().backward()
assert model.module.weight.grad.tolist() == [[3, 5]]
distributed.destroy_process_group()
""",
    "compile, eager": """
assert torch.compile(lambda x: 2 * x, backend="eager")(torch.ones(2)).tolist() == [2, 2]
""",
    "compile, inductor": """
assert torch.compile(lambda x: 2 * x)(torch.ones(2)).tolist() == [2, 2]
""",
    "export": """
program = torch.export.export(torch.nn.Linear(2, 3), (torch.ones(1, 2),))
assert program.module()(torch.ones(1, 2)).shape == (1, 3)
""",
    "activation checkpoints": """
from torch.utils.checkpoint import checkpoint
x = torch.tensor([3.0], requires_grad=True)
checkpoint(lambda x: x * x, x, use_reentrant=False).sum().backward()
assert x.grad.tolist() == [6]
""",
    "meta tensors": """
assert torch.nn.Linear(2, 3, device="meta")(torch.empty(5, 2, device="meta")).shape == (5, 3)
assert torch.nn.Conv2d(3, 4, 3, device="meta")(torch.empty(1, 3, 8, 8, device="meta")).shape == (1, 4, 6, 6)
""",
    "a generator": """
assert torch.Generator().manual_seed(5).initial_seed() == 5
""",
}


def run(program: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor")}
    command = [sys.executable, *options, "-c", f"import sys\n{program}", str(folder)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done


SLOW = "compile, inductor"


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == SLOW else n for n in PROGRAMS])
def test_what_torch_can_do_it_can_do_in_a_stage(name: str, tmp_path: Path) -> None:
    if "inductor" in name and not (shutil.which("cc") and shutil.which("g++")):
        pytest.skip("no C++ compiler")
    run(f"import stages.tta, torch\n{UNEXECUTED}\n{PROGRAMS[name]}", tmp_path)


def test_it_can_without_a_stage_too(tmp_path: Path) -> None:
    """As a notebook may do it: torch first, then something of ours, then torch's compiler."""
    run(f"import torch, stages.runtime.params\n{PROGRAMS['compile, eager']}", tmp_path)
    run(f"import stages, torch._dynamo.config as c, torch\nc.verbose\n{PROGRAMS['compile, eager']}", tmp_path)


def test_no_stage_loads_the_compiler(tmp_path: Path) -> None:
    names = sorted(path.stem for path in (ROOT / "stages").glob("*.py") if path.stem != "__init__")
    found = "[m for m in ('torch._inductor', 'torch._dynamo.config', 'sympy') if m in sys.modules]"
    done = run(f"import {', '.join(f'stages.{name}' for name in names)}\n{UNEXECUTED}\nprint({found})", tmp_path)
    assert done.stdout == "[]\n"


def test_a_step_of_an_optimizer_does_not_load_it(tmp_path: Path) -> None:
    program = """
import stages, torch
weight = torch.nn.Parameter(torch.ones(1))
optimizer = torch.optim.AdamW([weight])
weight.square().sum().backward()
optimizer.step()
optimizer.zero_grad()
optimizer.load_state_dict(optimizer.state_dict())
"""
    run(program + UNEXECUTED, tmp_path)


def test_afterwards_it_is_an_ordinary_module(tmp_path: Path) -> None:
    """The object that was there before is the module; what is kept out of the compiler stays out of it."""
    run(
        """
import importlib, pickle, stages, torch, torch._dynamo
from types import ModuleType
from torch._dynamo.utils import is_compile_supported
before, utils = torch._dynamo, sys.modules["torch._dynamo.utils"]

@torch.compiler.disable
def kept_out(x):
    assert not torch.compiler.is_compiling()
    return 2 * x

assert kept_out(torch.ones(1)).item() == 2
assert type(before) is not ModuleType
assert "__warningregistry__" not in dir(type(before)) and not hasattr(before, "__wrapped__")
assert type(before) is not ModuleType
assert isinstance(torch._dynamo.config.verbose, bool)
assert type(before) is ModuleType and before is torch._dynamo is sys.modules["torch._dynamo"]
assert utils is torch._dynamo.utils is sys.modules["torch._dynamo.utils"]
assert type(utils) is ModuleType
assert is_compile_supported("cpu") == utils.is_compile_supported("cpu")
assert before.__spec__.loader is before.__loader__ and "lazy" not in type(before.__loader__).__module__
assert pickle.loads(pickle.dumps(utils.is_compile_supported)) is utils.is_compile_supported
assert torch.compile(lambda x: kept_out(x) + 1, backend="eager")(torch.ones(1)).item() == 3
try:
    before.nothing
except AttributeError:
    pass
else:
    raise AssertionError
""",
        tmp_path,
    )


def test_threads_that_use_it_at_once_wait_for_each_other(tmp_path: Path) -> None:
    run(
        """
from concurrent.futures import ThreadPoolExecutor
import threading
import stages, torch, torch._dynamo
together = threading.Barrier(8)
def ask(i):
    together.wait()
    return torch._dynamo.config if i % 2 else torch._dynamo.utils.counters
with ThreadPoolExecutor(8) as pool:
    found = list(pool.map(ask, range(8)))
assert all(one is found[i % 2] for i, one in enumerate(found))
""",
        tmp_path,
    )
