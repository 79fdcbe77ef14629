"""train_head: train the new head on the stored activations. This takes only seconds, because the body does not run.

In:   data/precompute/shards, data/split/{train,valid}.csv
Out:  data/train_head/head.safetensors, history.csv (epoch, train_loss, valid_loss, accuracy),
      rates.csv (step, lr, loss)
Recipe: step 3.
"""

import torch

from stages.dataset.tables.split_tables import read_rows
from stages.models.networks.head import HeadParams, new_head, save_head
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Seed, load
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.tasks.registry import TaskName, task_named
from stages.training.compute.batches import stage_seed
from stages.training.compute.device import DeviceParams, set_up_device
from stages.training.loop.checkpoint import Checkpoint
from stages.training.loop.fit_head import FitHeadParams, fit_head
from stages.training.loop.optimizer import OptimizerParams
from stages.training.loop.vector_feed import VectorFeed


def main() -> None:
    seed = load("seed", Seed)
    compute = set_up_device(load("device", DeviceParams), seed)
    checkpoint = Checkpoint("train_head", compute)
    params = load("train_head", FitHeadParams)
    shards = Shards(stage_folder("precompute") / "shards")
    rows = [read_rows(stage_folder("split"), part) for part in ("train", "valid")]
    task, head_seed = task_named(load("task", TaskName)).from_labels(rows[0].labels), stage_seed(seed, "train_head")
    head = compute.to_device(new_head(load("head", HeadParams), shards.width, task, seed))
    train, valid = (
        VectorFeed(shards, part.sha256s, targets, params.batch_size, compute.device, head_seed)
        for part, targets in ((part, torch.from_numpy(task.parse(part.labels, part.ids))) for part in rows)
    )
    history = fit_head(head, train, valid, task, params, load("optimizer", OptimizerParams), compute, checkpoint)
    with outputs(stage_folder("train_head")) as folder:
        save_head(head, folder / "head.safetensors")
        history.write(folder)
    checkpoint.delete()


if __name__ == "__main__":
    run(main)
