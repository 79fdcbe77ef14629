"""How the weights want their pictures: decided once by the stage `backbone`, and carried in every model file."""

from typing import Literal

from stages.common.params import Section


class Backbone(Section):
    """What `data/backbone/backbone.json` holds. `mean` and `std` are for RGB in 0..1."""

    name: str
    sha256: str
    source: str
    mean: list[float]
    std: list[float]
    interpolation: Literal["bilinear", "bicubic"]
    crop_pct: float
