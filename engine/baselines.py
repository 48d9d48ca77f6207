"""What a model that predicts samples must beat: "nothing changes", and the best linear function of the recent past."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.forecasting import error_unit, windows_on
from models.next_sample import last_seen, samples_ahead

HISTORY = 0.5  # s of the past that the linear predictor sees
RIDGE = 1e-3  # penalty per predicted frame; the limb leads depend on each other, so there must be one


@dataclass(frozen=True)
class Persistence:
    """Every lead stays at its last seen sample. Called as `predict` of engine.forecasting.losses_ahead."""

    k_steps_ahead: list[int]
    stride: int

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, 12, L) mV, lengths (B,) -> (B, 12, K, T') mV."""
        last, future, _ = samples_ahead(x, lengths, self.k_steps_ahead, self.stride)
        return last.expand_as(future)


@dataclass(frozen=True)
class LinearPredictor:
    """Linear in the last P samples of all leads; before a window's start its first sample is held. Called as
    Persistence is.

    Args:
        weights: (12 P + 1, 12 K) float32, from the past to the change since the last seen sample, in units of scale.
        scale: (12,) mV.
        k_steps_ahead: K distances in samples.
        stride: samples a frame.
    """

    weights: Tensor
    scale: Tensor
    k_steps_ahead: list[int]
    stride: int

    def __call__(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, 12, L) mV, lengths (B,) -> (B, 12, K, T') mV."""
        last, future, _ = samples_ahead(x, lengths, self.k_steps_ahead, self.stride)
        order = (len(self.weights) - 1) // x.shape[1]
        change = past(x / self.scale[:, None], self.stride, order) @ self.weights  # (B, T', 12 K)
        change = change.transpose(1, 2).unflatten(1, future.shape[1:3])  # (B, 12, K, T')
        return last + change * self.scale[:, None, None]


def past(x: Tensor, stride: int, order: int) -> Tensor:
    """What each frame has seen last, as the inputs of a linear function.

    Args:
        x: (B, 12, L).
        stride: samples a frame.
        order: samples of the past.

    Returns:
        (B, T', 12 * order + 1), the last one a constant 1.
    """
    n_samples = x.shape[-1]
    last = last_seen(n_samples, stride, x.device)  # (T',)
    index = (last[:, None] + torch.arange(1 - order, 1, device=x.device)).clamp(0, n_samples - 1)  # (T', order)
    x = x[..., index].transpose(1, 2).flatten(2)  # (B, T', 12 * order)
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)


def fit_linear(
    signals: Sequence[np.ndarray],
    seq_length: int,
    k_steps_ahead: Sequence[int],
    stride: int,
    scale: Sequence[float],
    sample_freq: float,
    device: str = "cpu",
) -> LinearPredictor:
    """Ridge regression on all windows of recordings. Windows count in the unit of the loss, so that noisy recordings
    do not decide.

    Args:
        signals: R arrays (12, T_i) int16 microvolts.
        seq_length: samples in a window.
        k_steps_ahead: K distances in samples.
        stride: samples a frame.
        scale: 12 typical spreads in mV.
        sample_freq: Hz.
        device: where to compute.

    Returns:
        LinearPredictor.

    Raises:
        ValueError: nothing lies so far ahead.
    """
    order = max(1, round(HISTORY * sample_freq))
    scale = torch.tensor(scale, device=device)
    n_leads = len(scale)
    n_inputs = n_leads * order + 1
    n_frames = 0
    gram = torch.zeros(n_inputs, n_inputs, dtype=torch.float64, device=device)
    moment = torch.zeros(n_inputs, n_leads * len(k_steps_ahead), dtype=torch.float64, device=device)
    for x, lengths in windows_on(device, signals, seq_length):
        last, future, valid = samples_ahead(x, lengths, k_steps_ahead, stride)
        whole = valid.all(2).squeeze(1)  # (B, T'): all distances are in the window
        weight = 1 / (error_unit(x, lengths, scale) / scale).mean(1)  # (B,)
        inputs = past(x / scale[:, None], stride, order) * weight[:, None, None]  # (B, T', 12 P + 1)
        change = (future - last) / scale[:, None, None] * weight[:, None, None, None]  # (B, 12, K, T')
        inputs = inputs[whole].double()  # (N, 12 P + 1)
        change = change.flatten(1, 2).transpose(1, 2)[whole].double()  # (N, 12 K)
        gram += inputs.T @ inputs
        moment += inputs.T @ change
        n_frames += len(inputs)
    if n_frames == 0:
        raise ValueError(
            f"no training recording shows {max(k_steps_ahead)} samples ahead: it must be longer, "
            "or --k_steps_ahead shorter"
        )
    penalty = torch.full((n_inputs,), RIDGE * n_frames, dtype=torch.float64, device=device)
    penalty[-1] = 0  # the constant is free
    weights = torch.linalg.solve(gram + penalty.diag(), moment).float()
    return LinearPredictor(weights, scale, list(k_steps_ahead), stride)


def skill(loss: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """Share of a baseline's loss that the model saves: 1 is perfect, 0 no better, negative worse. Arrays -> array."""
    return 1 - np.asarray(loss) / np.asarray(baseline)
