"""How the network wants its pictures: decided once, and carried in every model file."""

from typing import Annotated, Literal

from pydantic import Field

from stages.runtime.params import PositiveRate, Section, SizePx


class ResizeParams(Section):
    """The section `resize` of params.yaml: what the network sees has gone through it, also at prediction."""

    size_px: SizePx
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class Backbone(Section):
    """What `data/backbone/backbone.json` holds. `mean` and `std` are for RGB in 0..1."""

    name: str
    sha256: str
    source: str
    mean: Annotated[list[float], Field(min_length=3, max_length=3)]
    std: Annotated[list[PositiveRate], Field(min_length=3, max_length=3)]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: Annotated[float, Field(gt=0, le=1)]
