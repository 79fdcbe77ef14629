"""Training the head alone, on stored activations or on those of freshly augmented pictures."""

from stages.common.batches import TrainFeed, ValidFeed
from stages.common.checkpoint import Checkpoint
from stages.common.device import Compute
from stages.common.fit import fit
from stages.common.head import Head
from stages.common.history import History
from stages.common.optim import OptimizerParams, make_optimizer
from stages.common.params import PositiveRate, TrainBatchSize
from stages.common.schedule import ScheduleParams, make_schedule, total_epochs


class FitHeadParams(ScheduleParams):
    lr: PositiveRate
    batch_size: TrainBatchSize


def fit_head(
    head: Head,
    train: TrainFeed,
    valid: ValidFeed,
    params: FitHeadParams,
    optimizer_params: OptimizerParams,
    compute: Compute,
    checkpoint: Checkpoint,
) -> History:
    optimizer = make_optimizer(optimizer_params, [list(head.parameters())], [params.lr])
    epochs = total_epochs(params.n_cycles, params.cycle_len, params.cycle_mult)
    schedule = make_schedule(params, train.n_batches())
    return fit(head, train, valid, optimizer, schedule, epochs, compute, checkpoint=checkpoint)
