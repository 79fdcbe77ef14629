"""Precompute: the frozen body and concat pooling over every picture, once, without augmentation.

In:   data/resize/shards, data/backbone
Out:  data/precompute/shards/*.arrow (sha256, float32 (2C,))
Recipe: `precompute=True`: no augmentation, BatchNorm in eval mode. It knows neither labels nor split: a new fold or
        seed computes nothing here.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL
import pyarrow as pa
import timm
import torch

from stages.common import backbone, depthwise, device, pictures, receipt, transforms
from stages.common.backbone import Body, load_backbone
from stages.common.code import code_version
from stages.common.device import Compute, DeviceParams, compute_on
from stages.common.items import Items, ItemsParams, complete, values
from stages.common.params import Positive, Section, SizePx, load
from stages.common.pictures import Pictures
from stages.common.preprocessing import Backbone
from stages.common.shards import Shards, write_shards
from stages.common.stage import outputs, run

RESIZED, OUT = Path("data/resize/shards"), Path("data/precompute")


class PrecomputeParams(Section):
    size_px: SizePx
    batch_size: Positive


def activations(
    body: Body, about: Backbone, resized: Shards, shas: list[str], params: PrecomputeParams, compute: Compute
) -> Iterator[npt.NDArray[np.float32]]:
    """float32 (2C,), in the order of `shas`."""
    feed = Pictures(resized, shas, about, params.size_px, params.batch_size, compute)
    for images, rows, padding in feed.batches():
        with torch.inference_mode(), compute.autocast():
            pooled = body(images)
        yield from pooled[: len(rows) - padding].float().cpu().numpy()


def contents(resized: Shards) -> dict[str, str]:
    """Picture's sha256: sha256 of its resized form, which is what the body sees."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        shas = list(resized.sha256s())
        return dict(zip(shas, pool.map(lambda sha: hashlib.sha256(resized.blob(sha)).hexdigest(), shas), strict=True))


def main() -> None:
    params = load("precompute", PrecomputeParams)
    compute = compute_on(load("device", DeviceParams), seed=0)
    about, body = load_backbone()
    compute.place(body)
    resized = Shards(RESIZED)
    content = contents(resized)
    picture = {content: sha for sha, content in content.items()}
    key = {
        "params": params.model_dump(), "preprocessing": about.model_dump(), "compute": compute.describe(),
        "weights": backbone.weights_sha256(), "pillow": PIL.__version__, "timm": timm.__version__,
        "code": code_version(backbone, depthwise, device, pictures, transforms, activations),
    }  # fmt: skip
    items = Items("precompute", key, load("items", ItemsParams))

    def make(found: Sequence[str]) -> Iterator[bytes]:
        shas = [picture[one] for one in found]
        return (vector.tobytes() for vector in activations(body, about, resized, shas, params, compute))

    def vectors(shas: Sequence[str]) -> list[npt.NDArray[np.float32]]:
        return [np.frombuffer(one, np.float32) for one in values(items, [content[sha] for sha in shas], make)]

    complete(items, picture, make)
    with outputs(OUT) as folder:
        write_shards(folder / "shards", content, pa.list_(pa.float32(), body.n_features), vectors)
    items.close()
    receipt.note(items=len(content), computed=items.made)


if __name__ == "__main__":
    run(main)
