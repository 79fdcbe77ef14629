"""augment: the head goes on, now on freshly augmented pictures through the frozen body.

In:   data/resize/shards, data/backbone, data/split/{train,valid}.csv, data/train_head/head.safetensors,
      data/precompute/shards (valid is not augmented: its stored activations serve)
Out:  data/augment/head.safetensors, history.csv (epoch, train_loss, valid_loss, accuracy), rates.csv (step, lr, loss)
Recipe: step 4 (`precompute=False`): augmentation has no effect on stored activations, so it is a stage of its own.
"""

from pathlib import Path

from stages.common.activation_feed import AugmentedActivations
from stages.common.backbone import load_backbone
from stages.common.batches import stage_key
from stages.common.device import DeviceParams, compute_on
from stages.common.fit_head import FitHeadParams, fit_head
from stages.common.head import labels_to_indexes, load_head, save_head
from stages.common.optim import OptimizerParams
from stages.common.params import Positive, Seed, SizePx, load
from stages.common.pictures import Pictures
from stages.common.rows import read_rows
from stages.common.shards import Shards
from stages.common.stage import outputs, run
from stages.common.transforms import TransformsParams
from stages.common.vector_feed import VectorFeed

RESIZED, ACTIVATIONS = Path("data/resize/shards"), Path("data/precompute/shards")
HEAD, OUT = Path("data/train_head/head.safetensors"), Path("data/augment")


def main() -> None:
    params, seed = load("augment", FitHeadParams), load("seed", Seed)
    compute = compute_on(load("device", DeviceParams), seed)
    size_px, body_batch_size = load("precompute.size_px", SizePx), load("precompute.batch_size", Positive)
    transforms, key = load("transforms", TransformsParams), stage_key(seed, "augment")
    (about, body), head = load_backbone(), compute.place(load_head(HEAD))
    (shas, labels), (valid_shas, valid_labels) = (
        (rows.sha256s, labels_to_indexes(rows.labels, head.shape.classes))
        for rows in (read_rows("train"), read_rows("valid"))
    )
    pictures = Pictures(Shards(RESIZED), shas, about, size_px, body_batch_size, compute)
    train = AugmentedActivations(compute.place(body), pictures, labels, transforms, params.batch_size, key)
    valid = VectorFeed(Shards(ACTIVATIONS), valid_shas, valid_labels, params.batch_size, compute.device, key)
    history = fit_head(head, train, valid, params, load("optimizer", OptimizerParams), compute)
    with outputs(OUT) as folder:
        save_head(head, folder / "head.safetensors")
        history.write(folder)


if __name__ == "__main__":
    run(main)
