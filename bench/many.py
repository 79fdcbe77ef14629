"""Measures the memory and the reruns of stages with many pictures: a first run, one picture added, nothing changed.

Usage: python -m bench.many PROJECT PICTURES [N]. PROJECT is a fresh clone, PICTURES a folder where N (100,000) small
JPEG files are generated.
"""

import csv
import hashlib
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from bench.reruns import PER_PICTURE, change, receipt, seconds

STAGES = ("ingest", "split", "resize", "precompute")
PARAMS = ["resize.size_px=64", "precompute.size_px=64", "precompute.batch_size=64"]


def draw(folder: Path, number: int) -> None:
    """Writes a picture of blurred noise from this seed: 96 x 72 px, 3 kB."""
    rng = np.random.default_rng(number)
    noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    noise.resize((96, 72), Image.Resampling.BICUBIC).save(folder / f"{number:06d}.jpg", quality=90)


def draw_some(folder: Path, numbers: range) -> None:
    for number in numbers:
        draw(folder, number)


def write_labels(root: Path, n: int) -> None:
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["id", "label"], *([f"{i:06d}", ["even", "odd"][i % 2]] for i in range(n))])


def md5s(project: Path) -> dict[str, tuple[str, int]]:
    """Returns the md5 and the size in bytes of each shard."""
    paths = [path for stage in PER_PICTURE for path in sorted((project / f"data/{stage}/shards").iterdir())]
    return {str(path): (hashlib.md5(path.read_bytes()).hexdigest(), path.stat().st_size) for path in paths}  # noqa: S324


def repro(project: Path, title: str) -> None:
    shutil.rmtree(project / ".unfreeze/receipts", ignore_errors=True)
    took = seconds(project, "dvc", "repro", "split", "precompute")
    print(f"{title}: {took:.1f} s, dvc repro split precompute", flush=True)
    for stage in STAGES:
        if (project / f".unfreeze/receipts/{stage}.json").exists():
            found = receipt(project, stage)
            print("  ", {k: found.get(k) for k in ("stage", "seconds", "items", "computed", "peak_mib")}, flush=True)


def main() -> None:
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    project, root = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    n = int(sys.argv[3]) if len(sys.argv) > 3 else 100_000
    (root / "train").mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor() as pool:
        lots = [range(start, min(start + 2000, n)) for start in range(0, n, 2000)]
        list(pool.map(draw_some, [root / "train"] * len(lots), lots))
    write_labels(root, n)
    change(project, [f"ingest.path={root}", *PARAMS])
    repro(project, f"{n:,} pictures, from scratch")
    before = md5s(project)
    draw(root / "train", n)
    write_labels(root, n + 1)
    repro(project, "one picture added")
    after = md5s(project)
    rewritten = sum(size for path, (md5, size) in after.items() if before.get(path, ("", 0))[0] != md5)
    total = sum(size for _, size in after.values())
    print(
        f"bytes of {', '.join(PER_PICTURE)} that changed: {rewritten:,} of {total:,}, {100 * rewritten / total:.2f} %"
    )
    for _ in range(3):
        repro(project, "nothing changed")


if __name__ == "__main__":
    main()
