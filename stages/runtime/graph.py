"""The graph of dvc.yaml, as far as `variant` needs it: which stages a param touches, and what these read."""

from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter
from typing import Any

from stages.runtime.errors import StageError

Stages = dict[str, Any]
LAST = "evaluate"


def outs_of(declared: dict[str, Any]) -> list[str]:
    """Paths of outs, metrics and plots."""
    entries = [entry for key in ("outs", "metrics", "plots") for entry in declared.get(key, [])]
    return [next(iter(entry)) if isinstance(entry, dict) else entry for entry in entries]


def upstream(stages: Stages) -> dict[str, set[str]]:
    """For each stage those whose outs it reads."""
    makers = {out: name for name, declared in stages.items() for out in outs_of(declared)}
    return {name: {makers[dep] for dep in declared["deps"] if dep in makers} for name, declared in stages.items()}


def touched(stages: Stages, keys: Iterable[str]) -> list[str]:
    """The stages that read one of these params, and those after them, on the way to LAST; upstream first.

    Raises StageError: there are none.
    """
    before, found = upstream(stages), list[str]()
    wanted, front = {LAST}, {LAST}
    while front := set().union(*(before[name] for name in front)) - wanted:
        wanted |= front
    for name in TopologicalSorter(before).static_order():
        read = [str(param) for param in stages[name].get("params", [])]
        if name in wanted and (reads(read, keys) or before[name] & set(found)):
            found.append(name)
    if not found:
        raise StageError(f"no stage before {LAST} reads {', '.join(keys)}: name a param that changes its result")
    return found


def reads(params: Sequence[str], keys: Iterable[str]) -> bool:
    """Whether one is declared, or a section of it, or a part of it."""
    return any(
        f"{key}.".startswith(f"{param}.") or f"{param}.".startswith(f"{key}.") for key in keys for param in params
    )


def needs(stages: Stages, names: Sequence[str]) -> set[str]:
    """Data that these stages read."""
    known = {out for declared in stages.values() for out in outs_of(declared)}
    return {dep for name in names for dep in stages[name]["deps"] if dep in known}
