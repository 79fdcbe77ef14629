"""Describes what changed for a stage since dvc.lock was written: which param, dep or output, its old and new value."""

from collections.abc import Iterator, Sequence
from typing import Any


def shorten_names(names: Sequence[str], max_names: int = 3) -> str:
    """Returns the first few names, and how many more there are."""
    n_more = len(names) - max_names
    return ", ".join(names) if n_more <= 0 else f"{', '.join(names[:max_names])} and {n_more} more"


def short_hash(hash_info: Any) -> str:
    return str(hash_info.value)[:8] if hash_info else "nothing"


def flatten(value: Any, key: str) -> dict[str, Any]:
    """Returns the values of nested dicts by dotted keys that start with `key`."""
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for part, inner in value.items() for name, leaf in flatten(inner, f"{key}.{part}").items()}


def changed_params(dep: Any) -> Iterator[str]:
    """Yields a line for each changed param. `dep` is DVC's dependency on keys of a params file."""
    old, new = (
        {key: leaf for name, value in (values or {}).items() for key, leaf in flatten(value, name).items()}
        for values in (dep.hash_info.value if dep.hash_info else {}, dep.read_params())
    )
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            yield f"param {key}: {old[key]} -> removed"
        elif key not in old:
            yield f"param {key}: new, {new[key]}"
        elif old[key] != new[key]:
            yield f"param {key}: {old[key]} -> {new[key]}"


def changed_file(dep: Any, kind: str) -> Iterator[str]:
    """Yields a line if a dep or an output on the disk differs from its entry in dvc.lock. `kind`: 'dep' or 'output'."""
    if not (status := dep.status()):
        return
    word, old = status[str(dep)], dep.hash_info
    if word in ("deleted", "not in cache"):
        yield f"{kind} {dep.def_path} {'is not here' if word == 'deleted' else 'is not in the cache'}"
    elif word == "new" or not old:
        yield f"{kind} {dep.def_path}: new"
    else:
        yield f"{kind} {dep.def_path}: {short_hash(old)} -> {short_hash(dep.get_hash())}{_file_counts(dep)}"


def _file_counts(dep: Any) -> str:
    if not dep.hash_info.isdir or not dep.meta or dep.meta.nfiles is None:
        return ""
    n_files = sum(1 for _ in dep.repo.dvcignore.find(dep.fs, dep.fs_path))
    return f" ({dep.meta.nfiles:,} -> {n_files:,} files)"
