"""How the network wants its pictures: decided once, and carried in every model file."""

from typing import Annotated, Literal

from pydantic import Field

from stages.common.params import Section, SizePx


class ResizeParams(Section):
    """The section `resize` of params.yaml: what the network sees has gone through it, also at prediction."""

    size_px: SizePx
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]


class Backbone(Section):
    """What `data/backbone/backbone.json` holds. `mean` and `std` are for RGB in 0..1."""

    name: str
    sha256: str
    source: str
    mean: list[float]
    std: list[float]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: float
