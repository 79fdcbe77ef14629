"""precompute: run the frozen body and concat pooling once over every picture, without augmentation.

In:   data/resize/shards, data/backbone
Out:  data/precompute/shards/*.arrow (sha256, float32 (2C,))
Recipe: `precompute=True`: no augmentation, BatchNorm in eval mode. This stage reads neither labels nor split, so it
        computes nothing for a new fold or seed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from stages.models.frozen.activations import activation_dependencies, activations, resized_sha256s
from stages.models.networks.backbone import load_backbone, weights_sha256
from stages.runtime import receipt
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import BatchSize, Section, SizePx, load
from stages.runtime.stage import run
from stages.store.items import Items, ItemsParams, load_or_make, make_missing
from stages.store.shards import Shards, write_shards
from stages.training.compute.device import DeviceParams, enough_memory, set_up_device
from stages.vision.batches.pictures import Pictures


class PrecomputeParams(Section):
    size_px: SizePx
    batch_size: BatchSize


def main() -> None:
    params = load("precompute", PrecomputeParams)
    compute = set_up_device(load("device", DeviceParams), seed=0)
    backbone, body = load_backbone(stage_folder("backbone"))
    body.check_size(params.size_px, "precompute.size_px")
    compute.to_device(body)
    resized = Shards(stage_folder("resize") / "shards")
    batch_size = compute.deterministic_batch_size(params.batch_size)
    min_batch_size = compute.min_batch_size()
    feed = Pictures(resized, list(resized.sha256s()), backbone, params.size_px, batch_size, compute)
    content = resized_sha256s(resized, feed.sha256s)
    picture = {content: sha for sha, content in content.items()}
    items = Items(
        "precompute",
        activation_dependencies(feed, weights_sha256(stage_folder("backbone"))),
        load("items", ItemsParams),
    )

    def make(resized_shas: Sequence[str]) -> Iterator[bytes]:
        part = replace(feed, sha256s=[picture[sha] for sha in resized_shas])
        return (vector.tobytes() for vector in activations(body, part))

    def vectors(shas: Sequence[str]) -> list[bytes]:
        return load_or_make(items, [content[sha] for sha in shas], make)

    memory = enough_memory("precompute.batch_size", params.batch_size, min_batch_size)
    with outputs(stage_folder("precompute")) as folder, memory:
        make_missing(items, picture, make)
        write_shards(folder / "shards", content, pa.list_(pa.float32(), body.n_features), vectors)
    items.close()
    receipt.report_computed(len(content), items.n_computed)


if __name__ == "__main__":
    run(main)
