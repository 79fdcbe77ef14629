"""Fuzzing: spoiled pictures, labels, params and archives must be taken, or refused by an error of ours; nothing else.

    python -m tests.fuzz [--n N] [--seed S] [csv] [params] [picture] [archive]

Inputs have the numbers S to S + N - 1 and are the same every time: `--n 1 --seed 1234 picture` repeats one. Another
exception, a crash of the process, 10 s of CPU time, 1 GiB of memory or a line on stderr is a failure.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from signal import SIGPROF
from threading import Event, Lock, Timer

from tqdm import tqdm

ROOT = Path(__file__).parent.parent
KINDS = ("csv", "params", "picture", "archive")  # slow ones first
AT_ONCE = 500  # inputs of a worker
WALL_SECONDS = 300  # for one that waits instead of working
GOOD = ("fine", "refused")
Result = tuple[int, str, str]  # number of the input, outcome, detail


def work(kind: str, first: int, end: int) -> Iterator[Result]:
    """Inputs first to end - 1, in workers that are started again after a crash."""
    target = kind if ":" in kind else f"tests.fuzz_targets:{kind}"
    while first < end:
        done = first
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            for result in one_worker(target, first, end, folder):
                done = result[0] + 1
                yield result
        first = done


def one_worker(target: str, first: int, end: int, folder: str) -> Iterator[Result]:
    command = [sys.executable, "-m", "tests.fuzz_worker", target, str(first), str(end)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "UNFREEZE_HOME": folder, "OMP_NUM_THREADS": "1"}
    begun = None
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        while True:
            alarm = Timer(WALL_SECONDS, process.kill)
            alarm.start()
            line = process.stdout.readline()
            alarm.cancel()
            if not line:
                break
            number, *rest = json.loads(line)
            begun = None if rest else number
            if rest:
                yield number, *rest
        said = process.communicate()[1]
    if begun is not None:
        hang = process.returncode == -SIGPROF
        yield begun, "hang" if hang else "died", "too much CPU time" if hang else f"exit code {process.returncode}"
    elif process.returncode:
        raise RuntimeError(f"{' '.join(command)} does not start: {said[-2000:]}")


def fuzz(kinds: Sequence[str], n: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """(how often each kind had each outcome, a line for each failure)."""
    counts, failures, lock, stop = Counter[tuple[str, str]](), list[str](), Lock(), Event()
    lots = [(kind, at, min(at + AT_ONCE, seed + n)) for kind in kinds for at in range(seed, seed + n, AT_ONCE)]
    with tqdm(total=n * len(kinds), unit=" inputs", disable=None) as bar, ThreadPoolExecutor(os.cpu_count()) as pool:

        def take(lot: tuple[str, int, int]) -> None:
            for number, outcome, detail in work(*lot):
                if stop.is_set():  # Ctrl-C, which the workers hear too
                    return
                with lock:
                    counts[lot[0], outcome] += 1
                    if outcome not in GOOD:
                        failures.append(f"{outcome}: --n 1 --seed {number} {lot[0]}: {detail}")
                    bar.set_postfix(failures=len(failures), refresh=False)
                    bar.update()

        try:
            list(pool.map(take, lots))
        except BaseException:
            stop.set()
            raise
    return counts, failures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; default: all")
    parser.add_argument("--n", type=int, default=1000, help="inputs of each kind; default 1000")
    parser.add_argument("--seed", type=int, default=0, help="number of the first input; default 0")
    arguments = parser.parse_args()
    counts, failures = fuzz(arguments.kinds or KINDS, arguments.n, arguments.seed)
    for (kind, outcome), count in sorted(counts.items()):
        print(f"{kind:8} {outcome:8} {count:8,}")
    sys.exit("\n".join(sorted(failures)) if failures else 0)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
