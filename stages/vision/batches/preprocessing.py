"""How the network wants its pictures: decided once, and carried in every model file."""

import json
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from stages.runtime.folders import stage_folder
from stages.runtime.params import PositiveRate, Section, SizePx


class ResizeParams(Section):
    """The section `resize` of params.yaml: what the network sees has gone through it, also at prediction."""

    size_px: SizePx
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class Resizing(ResizeParams):
    """What a model file holds of it: with `depth`, the stored values that become black and white in a picture of more
    than 8 bits. None, and then not written: 0 and the largest that its file can hold."""

    depth: tuple[int, int] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


def resizing(params: ResizeParams) -> Resizing:
    """The section with what ingest has decided for all pictures of the set. Raises OSError."""
    depth = json.loads((stage_folder("ingest") / "depth.json").read_text(encoding="utf-8"))["depth"]
    return Resizing(**params.model_dump(), depth=tuple(depth) if depth else None)


class Backbone(Section):
    """What `data/backbone/backbone.json` holds. `mean` and `std` are for RGB in 0..1."""

    name: str
    sha256: str
    source: str
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[PositiveRate], Field(min_length=3, max_length=3)]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: Annotated[float, Field(gt=0, le=1)]
