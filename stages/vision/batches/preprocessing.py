"""The network's preprocessing, which is decided once and stored in every model file."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from stages.runtime.params import PositiveRate, Section, SizePx


class ResizeParams(Section):
    """The section `resize` of params.yaml: applied to every picture before the network, also at prediction."""

    size_px: SizePx
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class Resizing(ResizeParams):
    """The resizing as it is stored in a model file.

    `depth`: the values that become black and white in pictures of more than 8 bits. None, which is not written, means
    0 and the largest possible value of the file.
    """

    depth: tuple[int, int] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None}


def resizing(params: ResizeParams, depth_file: Path) -> Resizing:
    """Returns the section `resize` and the depth that ingest chose for the data set. Raises OSError."""
    depth = json.loads(depth_file.read_text(encoding="utf-8"))["depth"]
    return Resizing(**params.model_dump(), depth=tuple(depth) if depth else None)


class Backbone(Section):
    """The content of `data/backbone/backbone.json`. `mean` and `std` are for RGB in 0..1."""

    name: str
    sha256: str
    source: str
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[PositiveRate], Field(min_length=3, max_length=3)]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: Annotated[float, Field(gt=0, le=1)]
