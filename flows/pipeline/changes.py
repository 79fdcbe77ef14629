"""What changed under a stage since dvc.lock was written, in words: which param, dep or output, old and new value."""

from collections.abc import Iterator, Sequence
from typing import Any


def shorten(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def short(hash_info: Any) -> str:
    return str(hash_info.value)[:8] if hash_info else "nothing"


def leaves(value: Any, key: str) -> dict[str, Any]:
    """Nested dicts as dotted keys."""
    if not isinstance(value, dict):
        return {key: value}
    return {name: leaf for part, inner in value.items() for name, leaf in leaves(inner, f"{key}.{part}").items()}


def changed_params(dep: Any) -> Iterator[str]:
    """`dep`: DVC's dependency on keys of a params file."""
    old, new = (
        {key: leaf for name, value in (values or {}).items() for key, leaf in leaves(value, name).items()}
        for values in (dep.hash_info.value if dep.hash_info else {}, dep.read_params())
    )
    for key in sorted(old.keys() | new.keys()):
        if key not in new:
            yield f"param {key}: {old[key]} -> removed"
        elif key not in old:
            yield f"param {key}: new, {new[key]}"
        elif old[key] != new[key]:
            yield f"param {key}: {old[key]} -> {new[key]}"


def changed_file(dep: Any, what: str) -> Iterator[str]:
    """A dep or an output on the disk against what the lock says of it."""
    if not (status := dep.status()):
        return
    word, old = status[str(dep)], dep.hash_info
    if word in ("deleted", "not in cache"):
        yield f"{what} {dep.def_path} {'is not here' if word == 'deleted' else 'is not in the cache'}"
    elif word == "new" or not old:
        yield f"{what} {dep.def_path}: new"
    else:
        yield f"{what} {dep.def_path}: {short(old)} -> {short(dep.get_hash())}{_files(dep)}"


def _files(dep: Any) -> str:
    if not dep.hash_info.isdir or not dep.meta or dep.meta.nfiles is None:
        return ""
    now = sum(1 for _ in dep.repo.dvcignore.find(dep.fs, dep.fs_path))
    return f" ({dep.meta.nfiles:,} -> {now:,} files)"
