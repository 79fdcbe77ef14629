"""Measures how far resize and precompute are from their limits, in turns on the same pictures.

Usage: python -m bench.limits FOLDER [ROUNDS], in a project whose stages have run; FOLDER is its ingest.path.
The limit of precompute is the time of the forward pass alone, on batches in memory. The limit of resize is the time of
Pillow alone (decode with draft, resize, encode) on all cores, from bytes in memory.
"""

import io
import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch
from PIL import Image

from stages.models.frozen.activations import activations
from stages.models.networks.backbone import load_backbone
from stages.precompute import PrecomputeParams
from stages.resize import resize
from stages.runtime.folders import stage_folder
from stages.runtime.params import load
from stages.store.shards import Shards
from stages.training.compute.device import DeviceParams, set_up_device
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import ResizeParams, Resizing

N_PICTURES = 512


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def ratios_to_limit(stage: Callable[[], object], limit: Callable[[], object], rounds: int) -> list[float]:
    """Returns for each round the seconds of the limit / the seconds of the stage. Both run once before the rounds."""
    stage(), limit()
    return [seconds(limit) / seconds(stage) for _ in range(rounds)]


def precompute_ratios(rounds: int) -> list[float]:
    params = load("precompute", PrecomputeParams)
    compute = set_up_device(load("device", DeviceParams), seed=0)
    backbone, body = load_backbone(stage_folder("backbone"))
    compute.to_device(body)
    shards = Shards(stage_folder("resize") / "shards")
    feed = Pictures(shards, list(shards.sha256s())[:N_PICTURES], backbone, params.size_px, params.batch_size, compute)
    batch = next(iter(feed.batches())).x

    def forward() -> None:
        for _ in range(feed.n_batches()):
            with torch.inference_mode(), compute.autocast():
                body(batch).float().cpu()

    return ratios_to_limit(lambda: list(activations(body, feed)), forward, rounds)


def resize_ratios(root: Path, rounds: int) -> list[float]:
    params = Resizing(**load("resize", ResizeParams).model_dump())
    table = pd.read_parquet(stage_folder("ingest") / "files.parquet").head(N_PICTURES)
    files = [(root / file, sha) for sha, file in zip(table["sha256"], table["file"], strict=True)]
    data = [path.read_bytes() for path, _ in files]

    def resize_with_pillow(bytes_: bytes) -> bytes:
        image = Image.open(io.BytesIO(bytes_))
        image.draft("RGB", (params.size_px, params.size_px))
        ratio = params.size_px / min(image.size)
        size = (round(image.width * ratio), round(image.height * ratio))
        plain = image if image.mode == "L" else image.convert("RGB")
        small = plain.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=params.jpeg_quality, subsampling=0)
        return buffer.getvalue()

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return ratios_to_limit(
            lambda: list(pool.map(lambda file: resize(file[0], file[1], params), files)),
            lambda: list(pool.map(resize_with_pillow, data)),
            rounds,
        )


def main() -> None:
    if not sys.argv[1:] or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    root, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5
    ratios = {"precompute / its limit": precompute_ratios(rounds), "resize / its limit": resize_ratios(root, rounds)}
    print(json.dumps({name: [round(ratio, 3) for ratio in values] for name, values in ratios.items()}))


if __name__ == "__main__":
    main()
