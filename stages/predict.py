"""predict: what a trained model says of pictures: files, folders or lists; of all of them only names are in memory.

    python -m stages.predict data/export pictures/ --out predictions.csv

No stage of the pipeline: it reads neither params.yaml nor data/, and runs wherever the model is. A picture goes through
what it went through before training (stages/vision/files/resized.py), then through the code of the stage tta: the
probabilities are its `plain` ones to the bit, on the same machine, whatever other pictures there are.
Out:  file, predicted, probability, and `probability:<class>` for each class: float32, a row a picture, as listed
      <stem of --out>.rejected.csv: file, reason
"""

import argparse
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError
from safetensors import SafetensorError
from tqdm import tqdm

from stages.dataset.reading.input_files import InputFile, input_files
from stages.dataset.tables.submission import submission
from stages.models.networks.network import Network, load_network
from stages.runtime.errors import StageError, one_line
from stages.runtime.outputs import atomic_file
from stages.runtime.params import BatchSize, Count, Section, Seed
from stages.runtime.stage import run
from stages.runtime.threads import map_lots, threads
from stages.tasks.registry import AnyTask
from stages.training.compute.batches import stage_key
from stages.training.compute.device import Compute, DeviceParams, Precision, compute_on, enough_memory
from stages.training.compute.predict import Floats
from stages.tta import over_views
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Resizing
from stages.vision.batches.transforms import TransformsParams, draw_each
from stages.vision.files import images
from stages.vision.files.resized import resized

CHUNK = 512  # resized pictures in memory at a time
Write = Callable[[pd.DataFrame], None]


class Prediction(Section):
    """`prediction` in model.json: what the model file does not say, and its results depend on."""

    batch_size: BatchSize
    precision: Precision
    n_aug: Count
    seed: Seed
    transforms: TransformsParams


class Opened(NamedTuple):
    """A picture as it is kept (`data`, b"" where there is none), named by the sha256 of its file, or why it is not."""

    file: InputFile
    sha256: str
    data: bytes
    reason: str = ""


class InMemory(dict[str, bytes]):
    """A store of some pictures."""

    def blob(self, sha256: str) -> bytes:
        return self[sha256]


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is no whole number above 0")
    return int(text)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict",
        description="What a trained model says of pictures. Prints CSV, or writes --out. Pictures that cannot be used "
        "are listed on stderr, and beside --out; the exit code is 0 if any could.",
        epilog="A folder is searched at all depths. Examples: predict data/export photo.jpg ; predict data/export "
        "photos/ --out said.parquet ; find . -name '*.png' | predict data/export -",
    )
    parser.add_argument("model", type=Path, help="data/export, or a model.safetensors of export or train_full")
    parser.add_argument("pictures", nargs="+", help="files, folders, @LIST (a text file, a name a line) or - (stdin)")
    parser.add_argument(
        "--tta", type=positive, default=0, metavar="N", help="average over N augmented views too (default 0)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write FILE, .csv or .parquet, instead of printing")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="write Kaggle's CSV: id, a probability a class")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="default: that of the training, or auto",
    )
    parser.add_argument(
        "--batch-size", type=positive, metavar="N", help="default: what the model was measured with, or 16"
    )
    parser.add_argument(
        "--max-megapixels", type=positive, default=100, metavar="N", help="larger ones are bad (default 100)"
    )
    return parser


def check_names(out: Path | None, submission: Path | None) -> None:
    """Raises StageError, before hours of work."""
    for option, path, suffixes in (("out", out, (".csv", ".parquet")), ("submission", submission, (".csv",))):
        if path and (path.suffix not in suffixes or path.is_dir()):
            raise StageError(f"--{option} {path}: it must be a file whose name ends in {' or '.join(suffixes)}")
    if out and submission and submission.resolve() in (out.resolve(), rejected_beside(out).resolve()):
        raise StageError(f"--submission {submission} is a file that --out {out} writes too: name another")


def rejected_beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.rejected.csv")


def load_model(path: Path) -> tuple[Network, Prediction | None]:
    """The network, and what model.json beside it says. Raises StageError."""
    path = path / "model.safetensors" if path.is_dir() else path
    beside = path.with_name("model.json")
    try:
        about = (
            Prediction.model_validate(json.loads(beside.read_text(encoding="utf-8"))["prediction"])
            if beside.exists()
            else None
        )
        return load_network(path), about
    except FileNotFoundError:
        raise StageError(f"no model {path}: name data/export, or a model.safetensors (`dvc repro export`)") from None
    except (KeyError, TypeError, ValidationError, SafetensorError, ValueError, RuntimeError) as error:
        raise StageError(f"{path} is no model of train_full or export as they are now: {one_line(error)}") from None


def open_picture(max_pixels: int, params: Resizing, one: InputFile) -> Opened:
    try:
        path = Path(one.path)
        if path.exists() and not path.is_file():  # who reads a pipe waits
            return Opened(one, "", b"", "not a regular file")
        data = path.read_bytes()
        return Opened(one, hashlib.sha256(data).hexdigest(), resized(data, params, max_pixels))
    except images.BadPictureError as error:
        return Opened(one, "", b"", str(error).replace("ingest.max_megapixels", "--max-megapixels"))
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        return Opened(one, "", b"", getattr(error, "strerror", None) or str(error))


def predicted(
    network: Network, opened: Sequence[Opened], n_aug: int, about: Prediction | None, batch_size: int, compute: Compute
) -> Floats:
    """The task's predictions, float32 (n, ...): plain, or with `n_aug` averaged as in tta. A picture's draws depend on
    the seed and its own bytes, so neither on its place nor on its neighbours."""
    store, shas = InMemory((one.sha256, one.data) for one in opened), [one.sha256 for one in opened]
    batch_size = compute.deterministic_batch_size(batch_size)
    pictures = Pictures(store, shas, network.about, network.size_px, batch_size, compute)
    views = []
    if about:
        key = stage_key(about.seed, "predict")
        views = [draw_each(about.transforms, shas, [*key, view]) for view in range(n_aug)]
    return over_views(network, pictures, views, compute)[1]


def as_table(opened: Sequence[Opened], task: AnyTask, predictions: Floats) -> pd.DataFrame:
    files = [printable(one.file.path) for one in opened]
    return pd.DataFrame({"file": files} | task.answer(predictions))


def printable(name: str) -> str:
    """A name that is no UTF-8 goes into no table, and pandas leaves a carriage return in CSV unquoted."""
    return os.fsencode(name).decode(errors="replace").replace("\r", "\ufffd")


def writer(stack: ExitStack, path: Path | None) -> Write:
    """Appends tables to a file that appears when all is done, or prints them. Parquet: a row group a table.

    Raises StageError: the file's folder cannot be made."""
    try:
        file = stack.enter_context(atomic_file(path.absolute())) if path else None
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise StageError(f"{path}: its folder cannot be made ({error.strerror}): name another") from None
    if path is None or path.suffix != ".parquet":
        stream = stack.enter_context(file.open("w", newline="", encoding="utf-8")) if file else sys.stdout
        header = iter([True])
        return lambda table: table.to_csv(stream, index=False, header=next(header, False), lineterminator="\n")
    parquet: list[pq.ParquetWriter] = []

    def write(table: pd.DataFrame) -> None:
        rows = pa.Table.from_pandas(table, preserve_index=False)
        if not parquet:
            parquet.append(stack.enter_context(pq.ParquetWriter(file, rows.schema)))
        parquet[0].write_table(rows)

    return write


def chunks(found: Sequence[InputFile], opening: Callable[[InputFile], Opened]) -> Iterator[list[Opened]]:
    with threads() as pool, tqdm(total=len(found), unit=" pictures", disable=None, leave=False) as bar:
        for start in range(0, len(found), CHUNK):
            part = found[start : start + CHUNK]
            yield list(map_lots(pool, opening, part))
            bar.update(len(part))


def main() -> None:
    given = arguments().parse_args()
    check_names(given.out, given.submission)
    network, about = load_model(given.model)
    if given.tta and about is None:
        raise StageError("--tta draws as in training, and model.json, which says how, is not there: give data/export")
    batch_size = given.batch_size or (about.batch_size if about else 16)
    found = input_files(given.pictures)
    if given.submission and (twice := [id_ for id_, count in Counter(one.id for one in found).items() if count > 1]):
        raise StageError(
            f"--submission: {len(twice):,} ids are there more than once, as {twice[0]}: name the one folder"
        )
    precision = given.precision or (about.precision if about else "auto")
    device = DeviceParams(name=given.device, precision=precision, fast_depthwise=False)
    compute = compute_on(device, seed=0, out=sys.stderr)
    smallest = compute.smallest_deterministic_batch()
    network, task = compute.place(network), network.task
    opening = partial(open_picture, given.max_megapixels * 1_000_000, network.resize)
    n_rejected = 0
    with ExitStack() as stack, enough_memory("--batch-size", batch_size, smallest):
        write = writer(stack, given.out) if given.out or not given.submission else None
        submit = writer(stack, given.submission) if given.submission else None
        reject = writer(stack, rejected_beside(given.out)) if given.out else None
        if reject:
            reject(pd.DataFrame(columns=["file", "reason"]))
        for chunk in chunks(found, opening):
            bad, good = [one for one in chunk if one.reason], [one for one in chunk if not one.reason]
            for one in bad:
                tqdm.write(one_line(f"predict: {printable(one.file.path)}: {one.reason}"), file=sys.stderr)
            n_rejected += len(bad)
            if reject and bad:
                rows = [(printable(one.file.path), one.reason) for one in bad]
                reject(pd.DataFrame(rows, columns=["file", "reason"]))
            if good:
                predictions = predicted(network, good, given.tta, about, batch_size, compute)
                if write:
                    write(as_table(good, task, predictions))
                if submit:
                    submit(submission([printable(one.file.id) for one in good], task.submission(predictions)))
        if n_rejected == len(found):
            raise StageError(f"none of {len(found):,} pictures could be used: nothing was written")
    print(f"predict: {len(found) - n_rejected:,} predicted, {n_rejected:,} rejected", file=sys.stderr)


if __name__ == "__main__":
    try:
        run(main, with_receipt=False, with_arguments=True)
    except BrokenPipeError:  # whoever read has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
