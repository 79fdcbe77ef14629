"""Precompute: the frozen body and concat pooling over every picture, once, without augmentation.

In:   data/resize/shards, data/backbone
Out:  data/precompute/shards/*.arrow (sha256, float32 (2C,))
Recipe: `precompute=True`: no augmentation, BatchNorm in eval mode. It knows neither labels nor split: a new fold or
        seed computes nothing here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from stages.common import receipt
from stages.common.activations import activations, contents, depends_on
from stages.common.backbone import load_backbone
from stages.common.device import DeviceParams, compute_on, enough_memory
from stages.common.items import Items, ItemsParams, complete, values
from stages.common.outputs import outputs
from stages.common.params import BatchSize, Section, SizePx, load
from stages.common.pictures import Pictures
from stages.common.shards import Shards, write_shards
from stages.common.stage import run

RESIZED, OUT = Path("data/resize/shards"), Path("data/precompute")


class PrecomputeParams(Section):
    size_px: SizePx
    batch_size: BatchSize


def main() -> None:
    params = load("precompute", PrecomputeParams)
    compute = compute_on(load("device", DeviceParams), seed=0)
    about, body = load_backbone()
    compute.place(body)
    resized = Shards(RESIZED)
    batch_size = compute.whole(params.batch_size)
    feed = Pictures(resized, list(resized.sha256s()), about, params.size_px, batch_size, compute)
    content = contents(resized, feed.sha256s)
    picture = {content: sha for sha, content in content.items()}
    items = Items("precompute", depends_on(feed), load("items", ItemsParams))

    def make(found: Sequence[str]) -> Iterator[bytes]:
        some = replace(feed, sha256s=[picture[one] for one in found])
        return (vector.tobytes() for vector in activations(body, some))

    def vectors(shas: Sequence[str]) -> list[bytes]:
        return values(items, [content[sha] for sha in shas], make)

    with outputs(OUT) as folder, enough_memory("precompute.batch_size", params.batch_size):
        complete(items, picture, make)
        write_shards(folder / "shards", content, pa.list_(pa.float32(), body.n_features), vectors)
    items.close()
    receipt.remembered(len(content), items.made)


if __name__ == "__main__":
    run(main)
