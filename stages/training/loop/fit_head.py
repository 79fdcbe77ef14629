"""Trains the head alone, on stored activations or on activations of newly augmented pictures."""

from torch import nn

from stages.runtime.params import PositiveRate, TrainBatchSize
from stages.training.compute.batches import TrainFeed, ValidFeed
from stages.training.compute.device import Compute
from stages.training.compute.task import Objective
from stages.training.loop.checkpoint import Checkpoint
from stages.training.loop.fit import fit
from stages.training.loop.history import History
from stages.training.loop.optimizer import OptimizerParams, make_optimizer
from stages.training.loop.schedule import ScheduleParams, make_schedule, total_epochs


class FitHeadParams(ScheduleParams):
    lr: PositiveRate
    batch_size: TrainBatchSize


def fit_head(
    head: nn.Module,
    train: TrainFeed,
    valid: ValidFeed,
    task: Objective,
    params: FitHeadParams,
    optimizer_params: OptimizerParams,
    compute: Compute,
    checkpoint: Checkpoint,
) -> History:
    optimizer = make_optimizer(optimizer_params, [list(head.parameters())], [params.lr])
    epochs = total_epochs(params.n_cycles, params.cycle_len, params.cycle_mult)
    schedule = make_schedule(params, train.n_batches())
    return fit(head, train, valid, task, optimizer, schedule, epochs, compute, checkpoint=checkpoint)
