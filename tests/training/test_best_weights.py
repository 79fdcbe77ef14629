"""The weights that are handed on are those of the epoch that the history says."""

import pytest
import torch
from torch import nn

from stages.training.loop.best_weights import BestWeights, Keep
from stages.training.loop.history import History


@pytest.mark.parametrize(("keep", "losses", "kept"), [
    ("best", [0.5, 0.4, 0.3], 2),
    ("best", [0.5, 0.4, 0.6], 1),
    ("best", [0.5, 0.7, 0.6], 0),
    ("best", [0.5, 0.5, 0.5], 0),
    ("best", [0.5, 0.4, 0.6, 0.1, 0.3], 4),
    ("last", [0.5, 0.4, 0.6], 2),
])  # fmt: skip
def test_kept_and_restored(keep: Keep, losses: list[float], kept: int) -> None:
    model = nn.Linear(2, 1)
    history = History()
    best_weights, rows = BestWeights(model, keep, {1, 2, 4}, history), history.epochs
    for epoch, loss in enumerate(losses):
        nn.init.constant_(model.weight, epoch)
        rows.append({"epoch": epoch, "valid_loss": loss})
        best_weights()
    assert best_weights.restore() is rows[kept]
    assert torch.equal(model.weight, torch.full((1, 2), float(kept)))
    assert [row["kept"] for row in rows] == [int(epoch == kept) for epoch in range(len(losses))]
