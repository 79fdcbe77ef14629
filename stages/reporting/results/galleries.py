"""Galleries of pictures with their predictions, and with Grad-CAM if the prediction is incorrect."""

import base64
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from stages.models.networks.network import Network
from stages.models.serving.grad_cam import GradCam
from stages.reporting.results.overlay import overlay
from stages.reporting.results.predictions import Predictions
from stages.runtime.errors import StageError
from stages.store.shards import Shards
from stages.training.compute.device import Compute
from stages.vision.batches.network_input import square
from stages.vision.batches.pictures import Pictures

SIDE_PX = 136
N_EACH, N_PER_CLASS, MAX_CLASSES = 8, 4, 10
BATCH_SIZE = 16


@dataclass(frozen=True)
class Shown:
    """A picture of a gallery. `thumbnail` and `heat` are data URIs of JPEGs.

    `heat` is None for correct predictions, and if Grad-CAM is empty: no region supports the predicted class.
    """

    id: str
    actual: str
    predicted: str
    probability: float
    thumbnail: str
    heat: str | None


@dataclass(frozen=True)
class Gallery:
    title: str
    note: str
    pictures: list[Shown]


def choose(predictions: Predictions, worst_first: Sequence[str], seed: int) -> Iterator[tuple[str, str, list[int]]]:
    """Yields (title, note, rows) of each gallery. Only the first MAX_CLASSES classes of `worst_first` get their own."""
    yield "Correct, at random", "", predictions.random(True, N_EACH, seed)
    yield "Incorrect, at random", "", predictions.random(False, N_EACH, seed)
    yield (
        "Most uncertain",
        "the smallest difference between the two highest probabilities",
        predictions.most_uncertain(N_EACH),
    )
    yield "Top losses", "the pictures that add most to the log loss", predictions.top_losses(N_EACH)
    for name in worst_first[:MAX_CLASSES]:
        label = predictions.classes.index(name)
        yield (
            f"Most correct: {name}",
            "correct, with the highest probability",
            predictions.most_confident(True, label, N_PER_CLASS),
        )
        note = f"actual class {name}: the wrong predictions with the highest probabilities"
        yield f"Most incorrect: {name}", note, predictions.most_confident(False, label, N_PER_CLASS)


def galleries(
    predictions: Predictions, ids: Sequence[str], sha256s: Sequence[str], network: Network, shards: Shards,
    compute: Compute, worst_first: Sequence[str], seed: int,
) -> list[Gallery]:  # fmt: skip
    """Returns the galleries. `ids` and `sha256s` are in the order of `predictions`; `network` is on the device of
    `compute`, in eval mode."""
    chosen = list(choose(predictions, worst_first, seed))
    incorrect_rows = sorted({row for _, _, rows in chosen for row in rows if not predictions.correct[row]})
    shas = [sha256s[row] for row in incorrect_rows]
    pictures = Pictures(shards, shas, network.backbone, network.size_px, BATCH_SIZE, compute)
    try:
        heats = dict(zip(incorrect_rows, heat(network, pictures, predictions.predicted[incorrect_rows]), strict=True))
    except StageError as error:  # it affects only Grad-CAM, not the rest of the report
        print(error, flush=True)
        heats = {}
    crop = cropper(shards, network.backbone.crop_pct)

    def shown(row: int) -> Shown:
        square_ = crop(sha256s[row])
        overlaid = data_uri(overlay(square_, heats[row])) if row in heats and heats[row].any() else None
        actual, predicted = (predictions.classes[labels[row]] for labels in (predictions.actual, predictions.predicted))
        return Shown(ids[row], actual, predicted, float(predictions.confidence[row]), data_uri(square_), overlaid)

    return [Gallery(title, note, [shown(row) for row in rows]) for title, note, rows in chosen]


def heat(network: Network, pictures: Pictures, labels: np.ndarray) -> Iterator[np.ndarray]:
    """Yields Grad-CAM of each picture for its class in `labels` (n,): float32 (h, w)."""
    explained = GradCam(network.body, network.head)
    with torch.inference_mode():
        for batch in pictures.batches() if len(pictures) else ():
            with pictures.compute.autocast():
                _, heats = explained(batch.x, torch.from_numpy(labels[batch.rows]).to(batch.x.device))
            yield from heats[: len(batch.rows) - batch.padding].float().cpu().numpy()


def cropper(shards: Shards, crop_pct: float) -> Callable[[str], Image.Image]:
    """Returns a function that maps a sha256 to the square that the network sees, SIDE_PX wide."""

    def crop(sha256: str) -> Image.Image:
        with Image.open(io.BytesIO(shards.blob(sha256))) as image:
            box = square(*image.size, 1 / crop_pct, 0.5, 0.5)
            return image.resize((SIDE_PX, SIDE_PX), Image.Resampling.BILINEAR, box, reducing_gap=2.0).convert("RGB")

    return crop


def data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=70)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
