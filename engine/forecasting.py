"""How far a prediction of samples is off: one robust loss for the model, its validation and the baselines.

Errors are counted in a lead's spread, its mean absolute deviation: the median of that over the training recordings,
or that of the window itself where it is larger. So a noisy lead of a noisy recording weighs no more than any other,
and a flat one is not blown up. Small errors count by their square, errors beyond one spread linearly (Huber 1964).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from data.preprocess import to_millivolts
from engine.windows import full_float32, half_overlapping, window_batches
from models.next_sample import samples_ahead

SMALLEST_SPREAD = 0.01  # mV, for leads that are flat in most recordings


def typical_spread(signals: Iterable[np.ndarray]) -> list[float]:
    """Median over recordings of each lead's mean absolute deviation: arrays (12, T_i) int16 microvolts -> 12 floats
    in mV.
    """
    spreads = []  # R times (12,)
    for signal in signals:
        x = to_millivolts(signal)
        spreads.append(np.abs(x - x.mean(1, keepdims=True)).mean(1))
    return np.maximum(np.median(spreads, axis=0), SMALLEST_SPREAD).tolist()


def error_unit(x: Tensor, lengths: Tensor, scale: Tensor) -> Tensor:
    """The spread that errors of each lead of each window are counted in.

    Args:
        x: (B, 12, L) mV.
        lengths: (B,) samples before the zero padding.
        scale: (12,) mV, the typical spread of each lead.

    Returns:
        (B, 12) mV.
    """
    valid = (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]  # (B, 1, L)
    mean = (x * valid).sum(2, keepdim=True) / lengths[:, None, None]
    spread = ((x - mean).abs() * valid).sum(2) / lengths[:, None]  # (B, 12)
    return torch.maximum(spread, scale)


def huber(prediction: Tensor, future: Tensor, valid: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """Errors at each distance ahead.

    Args:
        prediction, future: (B, 12, K, T') mV.
        valid: (B, 1, K, T') bool, False where the future is not known.
        unit: (B, 12) mV, from `error_unit`.

    Returns:
        sum (K,) and number (K,) of the errors.
    """
    unit = unit[..., None, None]
    error = F.smooth_l1_loss(prediction / unit, future / unit, reduction="none") * valid
    return error.sum((0, 1, 3)), valid.sum((0, 1, 3)) * prediction.shape[1]


def windows_on(device: str, signals: Sequence[np.ndarray], seq_length: int) -> Iterator[tuple[Tensor, Tensor]]:
    """All windows of recordings, which overlap by half, in batches on a device.

    Args:
        device: where the windows go.
        signals: R arrays (12, T_i) int16 microvolts.
        seq_length: samples in a window.

    Returns:
        iterator of x (b, 12, L) mV and lengths (b,).
    """
    for x, lengths, _ in window_batches(signals, half_overlapping(seq_length)):
        yield torch.from_numpy(x).to(device), torch.from_numpy(lengths).to(device)


@torch.inference_mode()
def losses_ahead(
    predict: Callable[[Tensor, Tensor], Tensor],
    signals: Sequence[np.ndarray],
    seq_length: int,
    k_steps_ahead: Sequence[int],
    stride: int,
    scale: Sequence[float],
    device: str = "cpu",
) -> np.ndarray:
    """Mean loss at each distance ahead over all windows of recordings.

    Args:
        predict: (x (b, 12, L) mV, lengths (b,)) -> (b, 12, K, T') mV.
        signals: R arrays (12, T_i) int16 microvolts.
        seq_length: samples in a window.
        k_steps_ahead: K distances in samples.
        stride: samples a frame.
        scale: 12 typical spreads in mV.
        device: where `predict` computes.

    Returns:
        (K,) float64, NaN where nothing lies so far ahead.
    """
    scale = torch.tensor(scale, device=device)
    total = np.zeros(len(k_steps_ahead))
    count = np.zeros(len(k_steps_ahead))
    for x, lengths in windows_on(device, signals, seq_length):
        _, future, valid = samples_ahead(x, lengths, k_steps_ahead, stride)
        with full_float32(device):
            prediction = predict(x, lengths)
        sums, n = huber(prediction, future, valid, error_unit(x, lengths, scale))
        total += sums.double().cpu().numpy()
        count += n.cpu().numpy()
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
