"""How a training goes: history.csv, its picture, the best epoch, checkpoints, and what is printed."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from engine.loop import Trainer
from engine.run_folder import RunFolder

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

TENSORBOARD = "tensorboard"  # folder of its event files in the run's
TIMING = ("seconds", "records_per_second")  # the last columns of history.csv
DRAW_EVERY = 3  # s; a picture takes a quarter of a second
CHECKPOINT_VERSION = 2  # 1 had neither version nor recordings, and the moving average's count beside its weights


@dataclass
class History:
    """Rows of history.csv and the best score so far.

    Args:
        run: the folder where they lie.
        metric: the column that decides which epoch is best.
        higher_is_better: whether that is the epoch of its largest value.
        shown: {column: word} of what is printed of an epoch.
        settings: the flags of the run, for checkpoints.
        digest: of the recordings, for checkpoints.
        is_main: only the main process draws.
        plots: whether history.png is drawn.
        tensorboard: whether the rows also go to TensorBoard, with the curves as a picture.
        rows: one a finished epoch.
        best: value of `metric` at the best epoch.
    """

    run: RunFolder
    metric: str
    higher_is_better: bool
    shown: dict[str, str]
    settings: dict
    digest: str
    is_main: bool = True
    plots: bool = True
    tensorboard: bool = False
    rows: list[dict] = field(default_factory=list)
    best: float = math.nan
    _drawn_at: float = field(default=-math.inf, init=False, repr=False)  # s, of time.monotonic()
    _writer: SummaryWriter | None = field(default=None, init=False, repr=False)

    @property
    def n_epochs(self) -> int:
        """Finished epochs."""
        return len(self.rows)

    def is_best(self, value: float) -> bool:
        """Whether an epoch with this value of `metric` is the best so far; if so the value is kept. The first epoch is,
        and so is one whose score cannot be computed, or one after such: better the latest weights than none.
        """
        worse = value <= self.best if self.higher_is_better else value >= self.best  # False where either is NaN
        if self.rows and worse:
            return False
        self.best = value
        return True

    def add(self, train_stats: dict[str, float], scores: dict[str, float]) -> None:
        """Append an epoch to history.csv, and draw it.

        Args:
            train_stats: from Trainer.train_one_epoch.
            scores: on validation.
        """
        timing = {name: train_stats[name] for name in TIMING}
        row = {name: value for name, value in train_stats.items() if name not in TIMING} | scores | timing
        self.rows.append(row)
        self.run.write_rows("history.csv", self.rows)
        if self.tensorboard and self.is_main:
            self._log(row)
        if (self.plots or self.tensorboard) and self.is_main:
            self._draw_if_due()

    def print_epoch(self) -> None:
        """The last epoch in a line: every one on a terminal, elsewhere those that are the best so far."""
        row = self.rows[-1]
        is_best = row is self.best_row()
        if is_best or sys.stdout.isatty():
            print(f"epoch {self.n_epochs:3d}  {self._text(row)}{'  best' if is_best else ''}", flush=True)

    def _draw_if_due(self) -> None:
        """Draw after every epoch, but where epochs take less than DRAW_EVERY only after some, and after the last."""
        is_last = self.n_epochs == self.settings["epochs"]
        if not is_last and time.monotonic() - self._drawn_at < DRAW_EVERY:
            return
        self._drawn_at = time.monotonic()
        from engine.plots import history_figure, plot_history  # here, for matplotlib takes a while to import

        if self.plots:
            plot_history(self.rows, self.run / "history.png")
        if self.tensorboard:
            self._writer.add_figure("curves", history_figure(self.rows), self.n_epochs)
            self._writer.flush()

    def _log(self, row: dict[str, float]) -> None:
        """The numbers of an epoch for TensorBoard."""
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter  # here, for only those who ask for it have it

            # A run that goes on may repeat epochs that it had logged before it was killed.
            self._writer = SummaryWriter(self.run / TENSORBOARD, purge_step=self.n_epochs)
        for name, value in row.items():
            if name != "epoch" and not math.isnan(value):
                self._writer.add_scalar(name, value, self.n_epochs)
        self._writer.flush()

    def _text(self, row: dict[str, float]) -> str:
        """What is printed of an epoch; what cannot be computed is left out."""
        values = [f"{word} {row[name]:.4f}" for name, word in self.shown.items() if not math.isnan(row[name])]
        return "  ".join([*values, f"{row['seconds']:.1f} s"])

    def best_row(self) -> dict[str, float]:
        """The epoch whose weights are in model.pth."""
        best = self.rows[0]
        for row in self.rows[1:]:
            value, before = row[self.metric], best[self.metric]
            worse = value <= before if self.higher_is_better else value >= before
            if not worse:
                best = row
        return best

    def save_checkpoint(self, trainer: Trainer) -> None:
        """Everything that --resume needs; to be written last of an epoch's files."""
        content = {
            "version": CHECKPOINT_VERSION,
            "trainer": trainer.state(),
            "history": self.rows,
            "best": self.best,
            "settings": self.settings,
            "recordings": self.digest,
        }
        self.run.save("checkpoint.pth", content)

    def summary(self, next_step: str) -> str:
        """The last words of a training: best epoch, scores, files, and what to type next."""
        best = self.best_row()
        missing = [word for name, word in self.shown.items() if math.isnan(best[name])]
        lines = [f"Best epoch {best['epoch']} of {self.n_epochs}: {self._text(best)}"]
        if missing:
            lines.append(f"Cannot be computed on these recordings and classes: {', '.join(missing)}")
        lines.append(f"Weights of the best epoch: {self.run / 'model.pth'}; every epoch: {self.run / 'history.csv'}")
        lines.append(f"Next: {next_step}")
        return "\n".join(lines)
