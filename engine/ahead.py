"""Pre-training of causal encoders: after every frame, predict the samples that follow at several distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from data.dataset import Batch
from engine.augment import change_gain
from engine.baselines import Persistence, fit_linear, skill
from engine.forecasting import error_unit, huber, losses_ahead, typical_spread
from engine.objective import Objective
from engine.run_folder import RunError
from models.next_sample import NextSampleModel


class SamplesAhead(Objective):
    """Of the flags it reads seq_length, sample_freq, k_steps_ahead and gain; the encoder is a causal one. Raises
    RunError where the recordings are too short for the distances.
    """

    shown = {
        "train_loss": "train",
        "valid_loss": "valid",
        "skill_persistence": "skill against persistence",
        "skill_linear": "against linear",
    }

    def _prepare(self, encoder: nn.Module) -> None:
        scale = typical_spread(self.train_signals)  # n_leads numbers, mV
        self.head_config = {"k_steps_ahead": self.args.k_steps_ahead, "scale": scale}
        self.model = NextSampleModel(encoder, self.args.k_steps_ahead, scale).to(self.group.device)
        self.scale = torch.tensor(scale, device=self.group.device)
        self._measure_baselines()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Robust error of predictions for windows of random amplification, each distance ahead weighing the same."""
        x, lengths = self._whole_batch(batch)
        x = change_gain(x, self.args.gain, self.generator)
        own = self.group.local_rows(len(x))
        x = x[own]
        lengths = lengths[own]
        prediction, future, valid = model(x, lengths)  # (b, n_leads, K, T')
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
        if self.valid_signals and np.isnan([self.persistence, self.linear]).any():
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
