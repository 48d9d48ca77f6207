"""What a model that predicts samples must beat: "nothing changes", and the best linear function of the recent past."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.forecasting import error_unit
from engine.inference import window_batches
from models.next_sample import samples_ahead

HISTORY = 0.5  # s of the past that the linear predictor sees
RIDGE = 1e-3  # penalty per predicted frame; the limb leads depend on each other, so there must be one


@dataclass(frozen=True)
class Persistence:
    """Every lead stays at its last seen sample. Called as `predict` of engine.forecasting.losses_ahead."""

    k_steps_ahead: list
    stride: int

    def __call__(self, x, lengths):
        last, future, _ = samples_ahead(x, lengths, self.k_steps_ahead, self.stride)
        return last.expand_as(future)


@dataclass(frozen=True)
class LinearPredictor:
    """Linear in the last P samples of all leads; before a window's start its first sample is held."""

    weights: (
        torch.Tensor
    )  # (12 P + 1, 12 K) float32, from the past to the change since the last seen sample, in units of scale
    scale: torch.Tensor  # (12,) mV
    k_steps_ahead: list
    stride: int

    def __call__(self, x, lengths):
        last, future, _ = samples_ahead(x, lengths, self.k_steps_ahead, self.stride)
        order = (len(self.weights) - 1) // x.shape[1]
        change = past(x / self.scale[:, None], self.stride, order) @ self.weights  # (B, T', 12 K)
        change = change.transpose(1, 2).unflatten(1, future.shape[1:3])  # (B, 12, K, T')
        return last + change * self.scale[:, None, None]


def past(x, stride, order):
    """The last `order` samples that each frame has seen, and a one: x (B, 12, L) -> (B, T', 12 * order + 1)."""
    n_samples = x.shape[-1]
    last = torch.arange(stride - 1, n_samples + stride - 1, stride, device=x.device)  # (T',)
    index = (last[:, None] + torch.arange(1 - order, 1, device=x.device)).clamp(0, n_samples - 1)
    x = x[..., index].transpose(1, 2).flatten(2)  # (B, T', 12 * order)
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], 2)


def fit_linear(signals, seq_length, k_steps_ahead, stride, scale, sample_freq, device="cpu"):
    """LinearPredictor by ridge regression on all windows of `signals`, arrays (12, T_i) int16 microvolts. Windows
    count in the unit of the loss, so that noisy recordings do not decide. Raises ValueError if nothing lies so far
    ahead.
    """
    order = max(1, round(HISTORY * sample_freq))
    scale = torch.tensor(scale, device=device)
    size, n = 12 * order + 1, 0
    gram = torch.zeros(size, size, dtype=torch.float64, device=device)
    moment = torch.zeros(size, 12 * len(k_steps_ahead), dtype=torch.float64, device=device)
    for x, lengths, _ in window_batches(signals, seq_length):
        x, lengths = torch.from_numpy(x).to(device), torch.from_numpy(lengths).to(device)
        last, future, valid = samples_ahead(x, lengths, k_steps_ahead, stride)
        whole = valid.all(2).squeeze(1)  # (B, T'): all distances are in the window
        weight = 1 / (error_unit(x, lengths, scale) / scale).mean(1)  # (B,)
        inputs = past(x / scale[:, None], stride, order) * weight[:, None, None]  # (B, T', P)
        change = (future - last) / scale[:, None, None] * weight[:, None, None, None]  # (B, 12, K, T')
        inputs, change = inputs[whole].double(), change.flatten(1, 2).transpose(1, 2)[whole].double()
        gram += inputs.T @ inputs
        moment += inputs.T @ change
        n += len(inputs)
    if n == 0:
        raise ValueError(
            f"no training recording shows {max(k_steps_ahead)} samples ahead: it must be longer, or --k_steps_ahead shorter"
        )
    penalty = torch.full((size,), RIDGE * n, dtype=torch.float64, device=device)
    penalty[-1] = 0  # the constant
    return LinearPredictor(
        torch.linalg.solve(gram + penalty.diag(), moment).float(), scale, list(k_steps_ahead), stride
    )


def skill(loss, baseline):
    """Share of a baseline's loss that the model saves: 1 is perfect, 0 no better, negative worse. Arrays -> array."""
    return 1 - np.asarray(loss) / np.asarray(baseline)
