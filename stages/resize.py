"""resize: convert each distinct picture to an upright JPEG with shorter side resize.size_px, packed in shards.

In:   data/ingest/files.parquet (sha256, file), data/ingest/depth.json, the files below ingest.path. DVC does not
      track these files: this stage compares each one with its sha256 in files.parquet. So a new label or another
      order resizes nothing.
Out:  data/resize/shards/*.arrow (sha256, JPEG bytes)
      Pictures in the item store are not read again.
Recipe: `data.resize(340, 'tmp')`, bilinear. fast.ai 0.7 ignores the EXIF orientation; this stage applies it.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import PIL
import pyarrow as pa
import pyarrow.parquet as pq

from stages.runtime import receipt
from stages.runtime.code_version import code_version
from stages.runtime.errors import StageError
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import load
from stages.runtime.stage import run
from stages.runtime.threads import map_lots, threads
from stages.store.items import Items, ItemsParams, load_or_make, make_missing
from stages.store.shards import write_shards
from stages.vision.batches.preprocessing import ResizeParams, Resizing, resizing
from stages.vision.files import bit_depth, images, metadata
from stages.vision.files.resized import resized

NO_PIXEL_LIMIT = 1 << 62  # ingest has already checked the limit on the same bytes


def resize(path: Path, sha256: str, params: Resizing) -> bytes:
    """Returns the picture as the bytes of a JPEG. Raises StageError if the file is not the one that ingest read."""
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StageError(f"{path} is not the file that ingest read: run `dvc repro ingest`, then this stage again")
    try:
        return resized(data, params, NO_PIXEL_LIMIT)
    except MemoryError:
        raise StageError(f"no memory left to open {path}: lower ingest.max_megapixels or end other programs") from None


def main() -> None:
    params = resizing(load("resize", ResizeParams), stage_folder("ingest") / "depth.json")
    root = Path(load("ingest.path", str))
    # ParquetFile, unlike pq.read_table, does not import pandas, which takes half a second
    table = pq.ParquetFile(stage_folder("ingest") / "files.parquet").read().to_pydict()
    files = dict(zip(table["sha256"], table["file"], strict=True))
    code = code_version(images, bit_depth, metadata, resized)
    key = {"params": params.model_dump(), "code": code, "pillow": PIL.__version__}
    items = Items("resize", key, load("items", ItemsParams))
    with outputs(stage_folder("resize")) as folder, threads() as pool:

        def make(shas: Sequence[str]) -> Iterable[bytes]:
            return map_lots(pool, lambda sha: resize(root / files[sha], sha, params), shas)

        make_missing(items, files, make)
        write_shards(folder / "shards", files, pa.binary(), lambda shas: load_or_make(items, shas, make))
    items.close()
    receipt.report_computed(len(files), items.n_computed)


if __name__ == "__main__":
    run(main)
