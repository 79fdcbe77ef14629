"""Params: `params.yaml` is the one truth. Sections are read strictly and have no defaults in code.

Read with ruamel in YAML 1.2, as DVC does: PyYAML makes `1e-3` a string and `no` a bool.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.common.stage import StageError

PARAMS = Path("params.yaml")

Fraction = Annotated[float, Field(ge=0, lt=1)]
Rate = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SizePx = Annotated[int, Field(ge=32, le=4096)]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
TrainBatchSize = Annotated[int, Field(ge=2)]  # BatchNorm has no spread of one
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A section of params.yaml: strict types (no "1e-3", no true for 1), unknown keys refused by name."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


T = TypeVar("T")


def load(section: str, kind: type[T], path: Path = PARAMS) -> T:
    """The section (or dotted key) of a params file as `kind`; a StageError names the key, the value and the rule."""
    try:
        value: Any = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        for key in section.split("."):
            value = value[key]
    except FileNotFoundError:
        raise StageError(f"no {path} in {Path.cwd()}: run stages from the top folder of the project") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise StageError(f"{path} is not valid YAML: {error}") from None
    except (KeyError, TypeError):
        raise StageError(f"{path}: section `{section}` is missing") from None
    try:
        return TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError as error:
        raise StageError(f"{path}: " + "; ".join(_sentence(section, e) for e in error.errors())) from None


def _sentence(section: str, error: Any) -> str:
    key = ".".join([section, *(str(part) for part in error["loc"] if str(part).replace("_", "").isalnum())])
    if error["type"] == "extra_forbidden":
        return f"unknown key `{key}`: remove it or mend its spelling"
    if error["type"] == "missing":
        return f"`{key}` is missing: there are no defaults in code"
    return f"`{key}` is {error['input']!r}: {error['msg']}"
