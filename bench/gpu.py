"""Compares pictures per second of precompute and of full training with the network alone, on this machine's device.

Usage: python bench/gpu.py [--pictures N] [--size-px S] [--batch-size B] [--rounds R] [BACKBONE ...]
It needs torch, timm, pandas, pyarrow, Pillow, pydantic, ruamel.yaml, safetensors and tqdm. The project need not be set
up, and neither pretrained weights (they do not change the time) nor pictures are needed: blurred noise of 340 px is
generated. It prints one line of JSON per backbone.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))


from stages.models.frozen.activations import activations
from stages.models.networks.backbone import Body
from stages.models.networks.depthwise import prepare_network
from stages.models.networks.head import Head, HeadConfig
from stages.models.networks.network import Network
from stages.store.shards import Shards, write_shards
from stages.tasks.single_label import SingleLabel
from stages.training.compute.device import Compute, DeviceParams, set_up_device
from stages.training.loop.freeze import train_mode
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.step import train_step
from stages.vision.batches.picture_feed import PictureFeed
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Backbone, Resizing
from stages.vision.batches.transforms import TransformsParams

TASK = SingleLabel(name="single_label", classes=["one", "two"])
BACKBONES = ["tf_efficientnet_lite0", "resnet34", "resnext50_32x4d"]


def noise(number: int) -> bytes:
    rng, buffer = np.random.default_rng(number), io.BytesIO()
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
    small.resize((453, 340), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def generate_shards(folder: Path, n: int) -> Shards:
    with ThreadPoolExecutor() as pool:
        shas = [f"{int(value):016x}{'0' * 48}" for value in np.random.default_rng(0).integers(2**62, size=n)]
        write_shards(folder, shas, pa.binary(), lambda part: list(pool.map(lambda sha: noise(int(sha[:15], 16)), part)))
    return Shards(folder)


def per_second(work: Callable[[], object], n: int, compute: Compute) -> float:
    start = time.perf_counter()
    work()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return n / (time.perf_counter() - start)


def measure(name: str, shards: Shards, args: argparse.Namespace) -> dict[str, Any]:
    compute = set_up_device(DeviceParams(name="auto", precision="auto", fast_depthwise=True), seed=0, out=sys.stderr)
    backbone = Backbone(
        name=name, sha256="", source="", mean=[0.5] * 3, std=[0.25] * 3, interpolation="bicubic", crop_pct=1.0
    )
    body = Body(name)
    head = Head(HeadConfig(n_features=body.n_features, task=TASK, hidden=512, dropout=(0.25, 0.5)))
    network = prepare_network(
        Network(backbone, Resizing(size_px=340, jpeg_quality=95), body, head, args.size_px), compute
    )
    pictures = Pictures(shards, list(shards.sha256s()), backbone, args.size_px, args.batch_size, compute)
    targets = torch.arange(len(pictures)) % 2
    transforms = TransformsParams(kind="side_on", max_zoom=1.1, max_rotate_deg=10, max_lighting=0.05)
    feed = PictureFeed(pictures, targets, transforms, [0])
    optimizer = make_optimizer(
        OptimizerParams(name="adamw", momentum=0.9, weight_decay=0.01), network.groups(), [1e-5] * 3
    )
    first_batch = next(iter(feed.epoch(0)))
    n = pictures.n_batches() * args.batch_size

    def precompute() -> None:
        network.eval()
        list(activations(body, pictures))

    def forward() -> None:
        network.eval()
        for _ in range(pictures.n_batches()):
            with torch.inference_mode(), compute.autocast():
                body(first_batch.x).float().cpu()

    def train_full() -> None:
        train_mode(network, bn_freeze=False)
        for batch in feed.epoch(0):
            train_step(network, batch, TASK, optimizer, compute)

    def forward_backward() -> None:
        train_mode(network, bn_freeze=False)
        for _ in range(pictures.n_batches()):
            train_step(network, first_batch, TASK, optimizer, compute)

    programs = (precompute, forward, train_full, forward_backward)
    for program in programs:
        program()
    rounds = [{p.__name__: per_second(p, n, compute) for p in programs} for _ in range(args.rounds)]
    result: dict[str, Any] = {"backbone": name, **compute.describe(), "size_px": args.size_px, "n": n}
    result |= {p.__name__: round(statistics.median(r[p.__name__] for r in rounds), 1) for p in programs}
    for stage, limit in (("precompute", "forward"), ("train_full", "forward_backward")):
        result[f"{stage} / {limit}"] = round(statistics.median(r[stage] / r[limit] for r in rounds), 3)
    return result


def at_least(minimum: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"{text}: a whole number of at least {minimum} was expected")
        return int(text)

    return number


def main() -> None:
    import timm  # after `stages`, which keeps torch's compiler from being loaded

    parser = argparse.ArgumentParser(
        description="Medians of pictures per second, and ratios to the limit; one line of JSON per backbone.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("backbones", nargs="*", default=BACKBONES, metavar="BACKBONE", help=", ".join(BACKBONES))
    parser.add_argument(
        "--pictures", type=at_least(1), default=4096, help="generated pictures; a few dozen for a trial"
    )
    parser.add_argument("--size-px", type=at_least(32), default=224, help="side of the network's input")
    parser.add_argument("--batch-size", type=at_least(2), default=64, help="pictures per batch")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="rounds of each measurement, in turns")
    args = parser.parse_args()
    if unknown := [name for name in args.backbones if not timm.is_model(name)]:
        parser.error(f"no model of timm {timm.__version__}: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory() as folder:
        shards = generate_shards(Path(folder) / "shards", args.pictures)
        for name in args.backbones:
            print(json.dumps(measure(name, shards, args)), flush=True)


if __name__ == "__main__":
    main()
