"""Reads `params.yaml`, the only source of settings: strict types, no defaults in code.

The file is read with ruamel as YAML 1.2, as DVC does, because PyYAML makes `1e-3` a string and `no` a bool.
"""

import difflib
import re
import reprlib
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.runtime.errors import StageError

PARAMS = Path("params.yaml")
SECTIONS_WITHOUT_EFFECT = ("items", "checkpoint_seconds")  # no output depends on these sections
SECTIONS_NOT_IN_REPORT = (*SECTIONS_WITHOUT_EFFECT, "export")
SECTIONS = (
    "task", "seed", "device", "checkpoint_seconds", "items", "ingest", "split", "resize", "backbone", "precompute",
    "head", "optimizer", "transforms", "lr_find", "train_head", "augment", "unfreeze", "train_full", "tta", "export",
)  # fmt: skip
# The parser needs a minute for 50,000 nested lists, or its stack overflows; this project's params.yaml has 150 nodes.
MAX_NODES = 5000
# Applies only to files with merges (`<<`), which multiply: 30 aliases expand to at most 3^10 = 59,049 maps (ten levels
# of three aliases); 90 aliases would fill the memory.
MAX_ALIASES = 30

# ruamel also raises Python's own errors, for invalid dates, numbers and tags, and for deep nesting.
YAML_ERRORS = (YAMLError, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)

Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SizePx = Annotated[int, Field(ge=32, le=4096)]
Count = Annotated[int, Field(ge=0, le=1_000_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000)]
CycleCount = Annotated[int, Field(ge=1, le=1000)]
BatchSize = Annotated[int, Field(ge=1, le=65536)]
TrainBatchSize = Annotated[int, Field(ge=2, le=65536)]  # BatchNorm needs two items for a variance
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A section of params.yaml. Types are strict (no "1e-3", no true for 1); an error names each unknown key."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


T = TypeVar("T")


_overrides: dict[str, Any] = {}


def override(changes: Sequence[str]) -> None:
    """Replaces values of params.yaml by the command's `key=value` pairs. Raises StageError if a key does not exist."""
    _overrides.clear()
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise StageError(f"{change!r} is not a setting: write KEY=VALUE, for example split.cv_idx=1")
        try:
            _overrides[key] = YAML(typ="safe").load(text)
        except YAML_ERRORS as error:
            raise StageError(f"{change!r} has no value that YAML can read: {error}") from None
    if _overrides:
        _with_overrides(parse(PARAMS))


def _with_overrides(params: Any) -> Any:
    for key, value in _overrides.items():
        *sections, last = key.split(".")
        section = params
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict) or last not in section:
            raise StageError(f"{PARAMS} has no key {key}: correct its spelling, or add the key there")
        section[last] = value
    return params


def load(section: str, kind: type[T], path: Path = PARAMS) -> T:
    """Returns the section (or the value at a dotted key) of a params file, validated as `kind`.

    Raises StageError, which names the key, the value and the rule.
    """
    value = parse(path)
    if path == PARAMS and _overrides:
        value = _with_overrides(value)
    if path == PARAMS and isinstance(value, dict) and (unknown := [str(key) for key in value if key not in SECTIONS]):
        close = difflib.get_close_matches(unknown[0], SECTIONS, n=1)
        raise StageError(
            f"{path}: unknown section {_short_repr.repr(unknown[0])}: remove it or correct its spelling"
            + (f" ({close[0]}?)" if close else "")
        )
    try:
        for key in section.split("."):
            value = value[key]
    except (KeyError, TypeError):
        raise StageError(f"{path}: section `{section}` is missing") from None
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        changed = [key for key in _overrides if f"{key}.".startswith(f"{section}.")] if path == PARAMS else []
        where = f"{path}, with {', '.join(changed)} from the command" if changed else path
        raise StageError(f"{where}: " + "; ".join(_error_message(section, e) for e in error.errors())) from None


def load_for_report() -> dict[str, Any]:
    """Returns the sections of params.yaml that the report shows."""
    return {name: value for name, value in _with_overrides(parse(PARAMS)).items() if name not in SECTIONS_NOT_IN_REPORT}


def parse(path: Path) -> Any:
    """Returns the content of a params file. Raises StageError."""
    try:
        text = path.read_text(encoding="utf-8")
        if (n_nodes := len(re.findall(r"[\[{]|[-?:]\s", text))) > MAX_NODES:
            raise StageError(f"{path} has {n_nodes:,} keys, dashes and brackets: {MAX_NODES:,} at most")
        if "<<" in text and (n_aliases := len(re.findall(r"\*\w", text))) > MAX_ALIASES:
            raise StageError(f"{path} merges (<<) and has {n_aliases} aliases (*name): {MAX_ALIASES} at most")
        return YAML(typ="safe").load(text)
    except FileNotFoundError:
        raise StageError(f"no {path} in {Path.cwd()}: run stages from the top folder of the project") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path} is not valid YAML: {error}") from None
    except YAML_ERRORS as error:
        raise StageError(f"{path} is not valid YAML: {type(error).__name__}: {error}") from None


class _ShortRepr(reprlib.Repr):
    """Shortens a value to one line: with aliases, the full text of a value in a short file may exceed the memory."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother = 3, 100, 100

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < 10**40 else "a huge number"

    def repr_instance(self, x: Any, level: int) -> str:
        plain = isinstance(x, bool | float | bytes | date | None)
        return super().repr_instance(x, level) if plain else f"a {type(x).__name__}"


_short_repr = _ShortRepr()


def _error_message(section: str, error: Any) -> str:
    parts = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"unknown key `{'.'.join([section, *parts])}`: remove it or correct its spelling"
    key = ".".join(
        [section, *(part for part in parts if part.replace("_", "").isalnum())]
    )  # without pydantic's type names
    if error["type"] == "missing":
        return f"`{key}` is missing: there are no defaults in code"
    return f"`{key}` is {_short_repr.repr(error['input'])}: {error['msg']}"
