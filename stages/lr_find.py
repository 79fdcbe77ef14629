"""lr_find: range test of the head on the activations. A good rate is the highest at which the loss still clearly falls.

In:   data/precompute/shards, data/split/train.csv
Out:  data/lr_find/curve.csv (lr, loss, smoothed), curve.png, suggestion.json (lr, lr_min)
Recipe: step 2. The rate is then set by hand in train_head.lr, as in the fast.ai course, so that results change only on
        purpose.
"""

import torch

from stages.dataset.tables.split_tables import read_rows
from stages.models.networks.head import HeadParams, new_head
from stages.reporting.figures.range_test import write_curve
from stages.runtime.folders import stage_folder
from stages.runtime.outputs import outputs
from stages.runtime.params import Seed, TrainBatchSize, load
from stages.runtime.stage import run
from stages.store.shards import Shards
from stages.tasks.registry import TaskName, task_named
from stages.training.compute.batches import stage_seed
from stages.training.compute.device import DeviceParams, set_up_device
from stages.training.loop.lr_finder import RangeTestParams, range_test
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.vector_feed import VectorFeed


class LrFindParams(RangeTestParams):
    batch_size: TrainBatchSize


def main() -> None:
    params, seed = load("lr_find", LrFindParams), load("seed", Seed)
    compute = set_up_device(load("device", DeviceParams), seed)
    train, shards = read_rows(stage_folder("split"), "train"), Shards(stage_folder("precompute") / "shards")
    task = task_named(load("task", TaskName)).from_labels(train.labels)
    head = compute.to_device(new_head(load("head", HeadParams), shards.width, task, seed))
    targets = torch.from_numpy(task.parse(train.labels, train.ids))
    feed = VectorFeed(shards, train.sha256s, targets, params.batch_size, compute.device, stage_seed(seed, "lr_find"))
    optimizer = make_optimizer(load("optimizer", OptimizerParams), [list(head.parameters())], [params.lr_start])
    with outputs(stage_folder("lr_find")) as folder:
        write_curve(
            range_test(head, feed, task, optimizer, params, compute, bn_freeze=False),
            "Head: learning-rate range test",
            folder,
        )


if __name__ == "__main__":
    run(main)
