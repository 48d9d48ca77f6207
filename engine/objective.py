"""What pre-training asks of an encoder: the frame that both kinds of question share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from argparse import Namespace

from torch import Generator, Tensor, nn

from data.dataset import Batch
from engine.distributed import ProcessGroup
from engine.recordings import TrainValid


class Objective(ABC):
    """A model around an encoder, its loss in training, and its scores on validation beside those of baselines.

    Args:
        args: the flags.
        encoder: that is pre-trained.
        recordings: that train and validate.
        group: the processes that train together.
        generator: what augments and hides, the same for all processes.

    Attributes:
        model: the encoder and a head, on the group's device.
        head_config: what config.json says of the head.
        shown: {column of pretrain_history.csv that is printed: its title}.
    """

    model: nn.Module
    head_config: dict
    shown: dict[str, str]

    def __init__(
        self,
        args: Namespace,
        encoder: nn.Module,
        recordings: TrainValid,
        group: ProcessGroup,
        generator: Generator | None,
    ):
        self.args = args
        self.recordings = recordings
        self.group = group
        self.generator = generator
        self.train_signals = [recordings.cache.signal(i) for i in recordings.train]
        self.valid_signals = [recordings.cache.signal(i) for i in recordings.valid]
        self._prepare(encoder)

    @abstractmethod
    def _prepare(self, encoder: nn.Module) -> None:
        """Make model and head_config, and measure the baselines."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """This process's share of the loss of a batch."""

    @abstractmethod
    def scores(self, model: nn.Module) -> dict[str, float]:
        """Columns of pretrain_history.csv on the validation recordings."""

    def _whole_batch(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x (B, n_leads, L) mV and lengths (B,) of all processes: each augments all of them alike, and then computes
        its own rows.
        """
        parts = (batch.x, batch.lengths)
        x, lengths = (self.group.all_gather(part.to(self.group.device, non_blocking=True)) for part in parts)
        return x, lengths
