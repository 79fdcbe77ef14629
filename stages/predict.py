"""predict: classify pictures with a trained model: files, folders or lists of names.

Memory holds the names of all pictures, but only some hundred pictures at a time.

    python -m stages.predict data/export pictures/ --out predictions.csv

This program is not a stage of the pipeline: it reads neither params.yaml nor data/, and runs wherever the model is.
Pictures are preprocessed as for training (stages/vision/files/resized.py) and predicted by the code of the stage tta:
on the same machine the probabilities equal the `plain` probabilities of tta to the bit, whatever other pictures are
given.
Out:  file, predicted, probability, and `probability:<class>` for each class: float32, one row per picture, in order
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
from stages.training.compute.batches import stage_seed
from stages.training.compute.device import Compute, DeviceParams, Precision, enough_memory, set_up_device
from stages.training.compute.predict import Floats
from stages.tta import predict_views
from stages.vision.batches.pictures import Pictures
from stages.vision.batches.preprocessing import Resizing
from stages.vision.batches.transforms import TransformsParams, draw_each
from stages.vision.files import images
from stages.vision.files.resized import resized

CHUNK = 512  # resized pictures in memory at a time
Write = Callable[[pd.DataFrame], None]


class PredictionSettings(Section):
    """The entry `prediction` of model.json: settings that predictions depend on and the model file does not contain."""

    batch_size: BatchSize
    precision: Precision
    n_aug: Count
    seed: Seed
    transforms: TransformsParams


class OpenedPicture(NamedTuple):
    """A resized picture (`data`, a JPEG) and the sha256 of its file; or, without `data`, why it is rejected."""

    input_file: InputFile
    sha256: str
    data: bytes
    reason: str = ""


class PicturesInMemory(dict[str, bytes]):
    """A store of pictures in memory."""

    def blob(self, sha256: str) -> bytes:
        return self[sha256]


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not an integer above 0")
    return int(text)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.predict",
        description="Classify pictures with a trained model. Prints CSV, or writes --out. Pictures that cannot be used "
        "are listed on stderr, and in a file beside --out; the exit code is 0 if any picture could be used.",
        epilog="A folder is searched at all depths. Examples: predict data/export photo.jpg ; predict data/export "
        "photos/ --out predictions.parquet ; find . -name '*.png' | predict data/export -",
    )
    parser.add_argument("model", type=Path, help="data/export, or a model.safetensors of export or train_full")
    parser.add_argument("pictures", nargs="+", help="files, folders, @LIST (text, one name per line) or - (stdin)")
    parser.add_argument(
        "--tta", type=positive, default=0, metavar="N", help="average over N augmented views too (default 0)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write FILE, .csv or .parquet, instead of printing")
    parser.add_argument("--submission", type=Path, metavar="FILE", help="write Kaggle's CSV: id, class probabilities")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="default: that of the training, or auto",
    )
    parser.add_argument("--batch-size", type=positive, metavar="N", help="default: that of the stage tta, or 16")
    parser.add_argument(
        "--max-megapixels", type=positive, default=100, metavar="N", help="reject larger pictures (default 100)"
    )
    return parser


def check_names(out: Path | None, submission: Path | None) -> None:
    """Raises StageError if a file name cannot be used, so that the program does not fail after hours of work."""
    for option, path, suffixes in (("out", out, (".csv", ".parquet")), ("submission", submission, (".csv",))):
        if path and (path.suffix not in suffixes or path.is_dir()):
            raise StageError(f"--{option} {path}: it must be a file whose name ends in {' or '.join(suffixes)}")
    if out and submission and submission.resolve() in (out.resolve(), rejected_beside(out).resolve()):
        raise StageError(f"--submission {submission} is a file that --out {out} writes too: choose another name")


def rejected_beside(out: Path) -> Path:
    return out.with_name(f"{out.stem}.rejected.csv")


def load_model(path: Path) -> tuple[Network, PredictionSettings | None]:
    """Returns the network, and `prediction` of the model.json in the same folder. Raises StageError."""
    path = path / "model.safetensors" if path.is_dir() else path
    json_path = path.with_name("model.json")
    try:
        settings = (
            PredictionSettings.model_validate(json.loads(json_path.read_text(encoding="utf-8"))["prediction"])
            if json_path.exists()
            else None
        )
        return load_network(path), settings
    except FileNotFoundError:
        raise StageError(f"no model {path}: name data/export, or a model.safetensors (`dvc repro export`)") from None
    except (KeyError, TypeError, ValidationError, SafetensorError, ValueError, RuntimeError) as error:
        raise StageError(f"{path} is not a model of the current train_full or export: {one_line(error)}") from None


def open_picture(max_pixels: int, params: Resizing, input_file: InputFile) -> OpenedPicture:
    try:
        path = Path(input_file.path)
        if path.exists() and not path.is_file():  # reading a pipe would block
            return OpenedPicture(input_file, "", b"", "not a regular file")
        data = path.read_bytes()
        return OpenedPicture(input_file, hashlib.sha256(data).hexdigest(), resized(data, params, max_pixels))
    except images.BadPictureError as error:
        return OpenedPicture(input_file, "", b"", str(error).replace("ingest.max_megapixels", "--max-megapixels"))
    except (OSError, ValueError) as error:  # a name with a zero byte raises ValueError
        return OpenedPicture(input_file, "", b"", getattr(error, "strerror", None) or str(error))


def predict_all(
    network: Network,
    opened: Sequence[OpenedPicture],
    n_aug: int,
    settings: PredictionSettings | None,
    batch_size: int,
    compute: Compute,
) -> Floats:
    """Returns the task's predictions, float32 (n, ...): plain, or averaged over `n_aug` views as in tta.

    The augmentations of a picture depend only on the seed and on the bytes of the picture, not on its position or on
    other pictures.
    """
    store = PicturesInMemory((picture.sha256, picture.data) for picture in opened)
    shas = [picture.sha256 for picture in opened]
    batch_size = compute.deterministic_batch_size(batch_size)
    pictures = Pictures(store, shas, network.backbone, network.size_px, batch_size, compute)
    views = []
    if settings:
        predict_seed = stage_seed(settings.seed, "predict")
        views = [draw_each(settings.transforms, shas, [*predict_seed, view]) for view in range(n_aug)]
    return predict_views(network, pictures, views, compute)[1]


def as_table(opened: Sequence[OpenedPicture], task: AnyTask, predictions: Floats) -> pd.DataFrame:
    files = [printable(picture.input_file.path) for picture in opened]
    return pd.DataFrame({"file": files} | task.answer(predictions))


def printable(name: str) -> str:
    """Returns the name without invalid UTF-8, which tables cannot hold, and \\r, which pandas does not quote in CSV."""
    return os.fsencode(name).decode(errors="replace").replace("\r", "\ufffd")


def writer(stack: ExitStack, path: Path | None) -> Write:
    """Returns a function that appends a table to the file at `path`, or prints the table if `path` is None.

    The file gets its name when `stack` closes. A Parquet file gets one row group per table. Raises StageError if the
    folder of the file cannot be created.
    """
    try:
        file = stack.enter_context(atomic_file(path.absolute())) if path else None
    except (FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        raise StageError(f"{path}: its folder cannot be created ({error.strerror}): choose another folder") from None
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


def chunks(files: Sequence[InputFile], opening: Callable[[InputFile], OpenedPicture]) -> Iterator[list[OpenedPicture]]:
    with threads() as pool, tqdm(total=len(files), unit=" pictures", disable=None, leave=False) as bar:
        for start in range(0, len(files), CHUNK):
            part = files[start : start + CHUNK]
            yield list(map_lots(pool, opening, part))
            bar.update(len(part))


def main() -> None:
    args = arguments().parse_args()
    check_names(args.out, args.submission)
    network, settings = load_model(args.model)
    if args.tta and settings is None:
        raise StageError("--tta needs model.json, which has the augmentations of the training: name data/export")
    batch_size = args.batch_size or (settings.batch_size if settings else 16)
    files = input_files(args.pictures)
    if args.submission and (
        repeated := [id_ for id_, count in Counter(file.id for file in files).items() if count > 1]
    ):
        raise StageError(
            f"--submission: {len(repeated):,} ids occur more than once, for example {repeated[0]}: give a single folder"
        )
    precision = args.precision or (settings.precision if settings else "auto")
    device = DeviceParams(name=args.device, precision=precision, fast_depthwise=False)
    compute = set_up_device(device, seed=0, out=sys.stderr, strict=args.precision is not None)
    min_batch_size = compute.min_batch_size()
    network, task = compute.to_device(network), network.task
    opening = partial(open_picture, args.max_megapixels * 1_000_000, network.resize)
    n_rejected = 0
    with ExitStack() as stack, enough_memory("--batch-size", batch_size, min_batch_size):
        write = writer(stack, args.out) if args.out or not args.submission else None
        submit = writer(stack, args.submission) if args.submission else None
        reject = writer(stack, rejected_beside(args.out)) if args.out else None
        if reject:
            reject(pd.DataFrame(columns=["file", "reason"]))
        for chunk in chunks(files, opening):
            rejected, usable = (
                [picture for picture in chunk if picture.reason],
                [picture for picture in chunk if not picture.reason],
            )
            for picture in rejected:
                tqdm.write(
                    one_line(f"predict: {printable(picture.input_file.path)}: {picture.reason}"), file=sys.stderr
                )
            n_rejected += len(rejected)
            if reject and rejected:
                rows = [(printable(picture.input_file.path), picture.reason) for picture in rejected]
                reject(pd.DataFrame(rows, columns=["file", "reason"]))
            if usable:
                predictions = predict_all(network, usable, args.tta, settings, batch_size, compute)
                if write:
                    write(as_table(usable, task, predictions))
                if submit:
                    submit(
                        submission(
                            [printable(picture.input_file.id) for picture in usable], task.submission(predictions)
                        )
                    )
        if n_rejected == len(files):
            raise StageError(f"none of {len(files):,} pictures could be used: nothing was written")
    print(f"predict: {len(files) - n_rejected:,} predicted, {n_rejected:,} rejected", file=sys.stderr)


if __name__ == "__main__":
    try:
        run(main, with_receipt=False, with_arguments=True)
    except BrokenPipeError:  # the reader has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
