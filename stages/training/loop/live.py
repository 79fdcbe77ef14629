"""Curves to look at while a stage trains: what DVCLive writes to .unfreeze/live/<stage>/, and no output of the stage.

A file a curve, plots/metrics/*.tsv (step and value), and the latest values in metrics.json. A training that goes on
from a checkpoint writes them anew from its history, so none has a row twice. UNFREEZE_LIVE=off switches it off.
"""

import os
import sys
from pathlib import Path
from typing import Any

from stages.training.loop.history import History

FOLDER = Path(".unfreeze/live")
NO_CURVE = ("epoch", "size_px", "kept")  # of an epoch's row
POINTS = 20  # of loss and rate in an epoch


def open_live(folder: Path) -> Any:
    """DVCLive without its look-ups: it would open the git repository and ask DVC Studio where it is known."""
    from dvclive.live import Live  # a second, with all of DVC: for stages that train alone

    class Quiet(Live):
        def _init_dvc(self) -> None:
            pass

        def _init_studio(self) -> None:
            pass

    return Quiet(dir=str(folder), dvcyaml=False, save_dvc_exp=False, report=None)


class Curves:
    """Of one training. Whatever goes wrong here is said once and does not end it."""

    def __init__(self, stage: str, history: History, n_batches: int) -> None:
        self.history, self.every = history, max(n_batches // POINTS, 1)
        self.n_steps = self.n_epochs = 0
        self.live: Any = None
        if os.environ.get("UNFREEZE_LIVE") != "off":
            self._try(lambda: setattr(self, "live", open_live(FOLDER / stage)))
            self.draw()

    def draw(self) -> None:
        """What the history holds and the curves do not yet."""
        if self.live is not None:
            self._try(self._draw)

    def step(self) -> None:
        """After a batch; every few of them."""
        if len(self.history.steps) - self.n_steps >= self.every:
            self.draw()

    def _draw(self) -> None:
        steps, epochs = self.history.steps, self.history.epochs
        for row in steps[self.n_steps :: self.every]:
            self._log(int(row["step"]), {"batch/loss": row["loss"], "batch/lr": row["lr"]})
        self.n_steps += len(range(self.n_steps, len(steps), self.every)) * self.every
        for row in epochs[self.n_epochs :]:
            self._log(int(row["epoch"]), {key: value for key, value in row.items() if key not in NO_CURVE})
        self.n_epochs = len(epochs)
        self.live.make_summary()

    def _log(self, step: int, values: dict[str, float]) -> None:
        self.live.step = step
        for name, value in values.items():
            self.live.log_metric(name, value)

    def _try(self, what: Any) -> None:
        try:
            what()
        except Exception as error:  # of DVCLive's, of the disk's: only a picture of the training is lost
            self.live = None
            print(f"no live curves: {type(error).__name__}: {error}", file=sys.stderr)
