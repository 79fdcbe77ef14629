"""What is fuzzed: each function prepares the current, empty folder and returns (maker of inputs, how one is looked at).

To look at an input ends with "fine" or "refused"; every exception that is none of ours goes through.
"""

import ast
import hashlib
import importlib
import io
import shutil
import zlib
from pathlib import Path
from typing import Any

from tests import spoiled, spoiled_archives, strange
from tests.fuzz_worker import Target

ROOT = Path(__file__).parent.parent
SIDE = 64


def picture() -> Target:
    """What ingest and resize do with a file; what ingest takes, resize must be able to resize."""
    from PIL import Image

    from stages.resize import resize
    from stages.vision.batches.preprocessing import Resizing
    from stages.vision.files import images

    path, params = Path("picture"), Resizing(size_px=SIDE, jpeg_quality=95)

    def look(data: bytes) -> str:
        try:
            facts = images.examine(data, 100_000_000).facts
        except images.BadPictureError:
            return "refused"
        path.write_bytes(data)
        small = Image.open(io.BytesIO(resize(path, hashlib.sha256(data).hexdigest(), params)))
        small.load()
        ratio = facts.width / facts.height
        assert small.mode in ("RGB", "L"), small
        assert min(small.size) == SIDE, small
        assert abs(small.width - ratio * small.height) <= max(1, ratio), (small, facts)
        return "fine"

    return spoiled.picture, look


SMALL = """
seed: 1
task: single_label
items: {max_gib: 1}
ingest: {path: pictures, layout: csv, id_column: id, label_column: label, max_megapixels: 1, max_rejected_pct: 100,
  depth: used}
split: {method: random, cv_idx: 0, valid_pct: 0.5, group_column: null, group_duplicates: true, max_distance: 0.001}
"""


def csv() -> Target:
    """The stages ingest and split on a small folder; what split writes, the training stages must read as it was."""
    import pandas as pd
    from PIL import Image

    from stages import ingest, split
    from stages.dataset.tables import split_tables as rows
    from stages.runtime.errors import StageError

    Path("params.yaml").write_text(SMALL, encoding="utf-8")
    for number, name in enumerate(strange.PICTURES):
        file = Path("pictures/train") / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(file)
    plot = ingest.plot_sizes
    nothing: Any = lambda *_: iter(())  # noqa: E731 (what it says goes to stderr, where a line is a failure)
    split.remarks = nothing

    def look(data: bytes) -> str:
        Path("pictures/labels.csv").write_bytes(data)
        seldom: Any = plot if zlib.crc32(data) % 40 == 0 else lambda *_: None  # takes ten times as long as the rest
        ingest.plot_sizes = seldom
        try:
            ingest.main()
            split.main()
        except StageError:
            return "refused"
        table = pd.read_parquet("data/ingest/images.parquet")
        parts = [rows.read_rows(Path("data/split"), part) for part in ("train", "valid")]
        read = sorted(row for one in parts for row in zip(one.ids, one.labels, one.sha256s, strict=True))
        assert read == sorted(table[["id", "label", "sha256"]].itertuples(index=False, name=None)), "rows have changed"
        pd.read_csv("data/ingest/rejected.csv")
        return "fine"

    return spoiled.csv, look


def archive() -> Target:
    """Unpacking: pictures below out/, and nothing anywhere else."""
    from stages.download import lay_out
    from stages.runtime.errors import StageError

    path, out = Path("archive"), Path("deep/out")

    def look(data: bytes) -> str:
        path.write_bytes(data)
        shutil.rmtree("deep", ignore_errors=True)
        try:
            lay_out("oxford_pets", path, out)
            outcome = "fine"
        except StageError:
            outcome = "refused"
        here = {one.as_posix() for one in (*Path().glob("*"), *Path("deep").glob("*"), *out.glob("*"))}
        assert here <= {"archive", "deep", *(f"deep/out{one}" for one in ("", "/train", "/test", "/labels.csv"))}, here
        assert all(
            one.is_file() and not one.is_symlink() for part in ("train", "test") for one in out.glob(f"{part}/*")
        )
        return outcome

    return spoiled_archives.archive, look


def sections() -> list[tuple[str, Any]]:
    """(name, class) of every section that a stage loads."""
    found: dict[str, Any] = {}
    for path in sorted((ROOT / "stages").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load"):
                continue
            if isinstance(node.args[0], ast.Constant):
                kind = compile(ast.Expression(node.args[1]), str(path), "eval")
                module = importlib.import_module(f"stages.{path.stem}")
                found[str(node.args[0].value)] = eval(kind, vars(module))
    return sorted(found.items())


def params() -> Target:
    """Every section of params.yaml, as its stage loads it."""
    from stages.runtime import params as code
    from stages.runtime.errors import StageError

    path, wanted, parse, parsed = Path("params.yaml"), sections(), code.parse, list[Any]()
    code.parse = lambda path: parsed[0]

    def look(data: bytes) -> str:
        path.write_bytes(data)
        refused = False
        try:
            parsed[:] = [parse(path)]  # once for all sections
        except StageError:
            return "refused"
        for section, kind in wanted:
            try:
                code.load(section, kind, path)
            except StageError:
                refused = True
        return "refused" if refused else "fine"

    return spoiled.params, look
