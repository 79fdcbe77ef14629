"""Precompute: the frozen body and concat pooling over every picture, once, without augmentation.

In:   data/resize/shards, data/backbone
Out:  data/precompute/shards/*.arrow (sha256, float32 (2C,))
Recipe: `precompute=True`: no augmentation, BatchNorm in eval mode. It knows neither labels nor split: a new fold or
        seed computes nothing here.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from stages.common import receipt
from stages.common.backbone import Body, load_backbone
from stages.common.device import Compute, DeviceParams, compute_on
from stages.common.params import Positive, Section, SizePx, load
from stages.common.pictures import Pictures
from stages.common.preprocessing import Backbone
from stages.common.shards import Shards, write_shards
from stages.common.stage import outputs, run, track

RESIZED, OUT = Path("data/resize/shards"), Path("data/precompute")


class PrecomputeParams(Section):
    size_px: SizePx
    batch_size: Positive


def activations(
    body: Body, about: Backbone, resized: Shards, shas: list[str], params: PrecomputeParams, compute: Compute
) -> npt.NDArray[np.float32]:
    """float32 (n, 2C), in the order of `shas`."""
    pictures = Pictures(resized, shas, about, params.size_px, params.batch_size, compute)
    features = np.empty((len(shas), body.n_features), np.float32)
    with torch.inference_mode():
        for images, rows, padding in track(pictures.batches(), pictures.n_batches(), "batches"):
            with compute.autocast():
                pooled = body(images)
            n = len(rows) - padding
            features[rows[:n]] = pooled[:n].float().cpu().numpy()
    return features


def main() -> None:
    params = load("precompute", PrecomputeParams)
    compute = compute_on(load("device", DeviceParams), seed=0)
    about, body = load_backbone()
    compute.place(body)
    resized = Shards(RESIZED)
    receipt.note(items=len(resized), computed=len(resized))

    def make(shas: list[str]) -> Iterable[npt.NDArray[np.float32]]:
        return list(activations(body, about, resized, shas, params, compute)) if shas else []

    with outputs(OUT) as folder:
        write_shards(folder / "shards", resized.sha256s(), pa.list_(pa.float32(), body.n_features), make)


if __name__ == "__main__":
    run(main)
