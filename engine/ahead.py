"""Pre-training of causal encoders: after every frame, predict the samples that follow at several distances."""

from __future__ import annotations

from argparse import Namespace

import numpy as np
import torch
from torch import Generator, Tensor, nn

from data.dataset import Batch
from engine.augment import change_gain
from engine.baselines import Persistence, fit_linear, skill
from engine.distributed import ProcessGroup
from engine.forecasting import error_unit, huber, losses_ahead, typical_spread
from engine.recordings import TrainValid
from engine.run_folder import RunError
from models.next_sample import NextSampleModel


class SamplesAhead:
    """The model, its loss in training and its scores on validation, beside those of two baselines.

    Args:
        args: seq_length, sample_freq, k_steps_ahead and gain.
        encoder: a causal one.
        recordings: that train and validate.
        group: the processes that train together.
        generator: what augments, the same for all processes.

    Raises:
        RunError: the recordings are too short for the distances.
    """

    # Columns of pretrain_history.csv that are printed.
    shown = {
        "train_loss": "train",
        "valid_loss": "valid",
        "skill_persistence": "skill against persistence",
        "skill_linear": "against linear",
    }

    def __init__(
        self,
        args: Namespace,
        encoder: nn.Module,
        recordings: TrainValid,
        group: ProcessGroup,
        generator: Generator | None,
    ):
        self.args = args
        self.group = group
        self.generator = generator
        self.train_signals = [recordings.cache.signal(i) for i in recordings.train]
        self.valid_signals = [recordings.cache.signal(i) for i in recordings.valid]
        scale = typical_spread(self.train_signals)  # 12 numbers, mV
        self.head_config = {"k_steps_ahead": args.k_steps_ahead, "scale": scale}
        self.model = NextSampleModel(encoder, args.k_steps_ahead, scale).to(group.device)
        self.scale = torch.tensor(scale, device=group.device)
        self._measure_baselines()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Robust error of the predictions for windows of random amplification, each distance ahead weighing the same.
        Every process changes the whole batch of B windows alike, and computes its own rows of it, b = B / number of
        processes.
        """
        parts = (batch.x, batch.lengths)
        x, lengths = (self.group.all_gather(t.to(self.group.device, non_blocking=True)) for t in parts)
        x = change_gain(x, self.args.gain, self.generator)
        own = self.group.local_rows(len(x))
        x = x[own]
        lengths = lengths[own]
        prediction, future, valid = model(x, lengths)  # (b, 12, K, T')
        error, n = huber(prediction, future, valid, error_unit(x, lengths, self.scale))  # (K,), (K,)
        return (error / self.group.all_reduce(n.clone()).clamp(min=1)).mean()

    def scores(self, model: nn.Module) -> dict[str, float]:
        """Columns of pretrain_history.csv on the validation recordings: losses and skills, all distances first."""
        loss = self._validate(lambda x, lengths: model(x, lengths)[0])  # (K,)
        return history_row(self.args.k_steps_ahead, loss, self.persistence, self.linear)

    def _measure_baselines(self) -> None:
        args = self.args
        stride = self.model.encoder.stride
        self.persistence = self._validate(Persistence(args.k_steps_ahead, stride))  # (K,)
        linear = fit_linear(
            self.train_signals,
            args.seq_length,
            args.k_steps_ahead,
            stride,
            self.head_config["scale"],
            args.sample_freq,
            self.group.device,
        )
        self.linear = self._validate(linear)  # (K,)
        if np.isnan([self.persistence, self.linear]).any():
            raise RunError(
                f"no validation recording shows {max(args.k_steps_ahead)} samples ahead: give a shorter --k_steps_ahead"
            )

    def _validate(self, predict):
        """(K,) mean loss at each distance over all windows of the validation recordings."""
        return losses_ahead(
            predict,
            self.valid_signals,
            self.args.seq_length,
            self.args.k_steps_ahead,
            self.model.encoder.stride,
            self.head_config["scale"],
            self.group.device,
        )


def history_row(
    k_steps_ahead: list[int], loss: np.ndarray, persistence: np.ndarray, linear: np.ndarray
) -> dict[str, float]:
    """Columns of pretrain_history.csv from the validation losses (K,) of model and baselines, all distances first."""
    row = {
        "valid_loss": loss.mean(),
        "persistence_loss": persistence.mean(),
        "linear_loss": linear.mean(),
        "skill_persistence": skill(loss.mean(), persistence.mean()),
        "skill_linear": skill(loss.mean(), linear.mean()),
    }
    for k, *losses in zip(k_steps_ahead, loss, persistence, linear):
        row |= dict(zip((f"valid_loss_{k}", f"persistence_loss_{k}", f"linear_loss_{k}"), losses))
        row |= {f"skill_persistence_{k}": skill(losses[0], losses[1]), f"skill_linear_{k}": skill(losses[0], losses[2])}
    return {name: float(value) for name, value in row.items()}
