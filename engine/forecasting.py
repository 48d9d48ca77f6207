"""How far a prediction of samples is off: one robust loss for the model, its validation and the baselines.

Errors are counted in a lead's spread, its mean absolute deviation: the median of that over the training recordings,
or that of the window itself where it is larger. So a noisy lead of a noisy recording weighs no more than any other,
and a flat one is not blown up. Small errors count by their square, errors beyond one spread linearly (Huber 1964).
"""

import numpy as np
import torch
import torch.nn.functional as F

from data.preprocess import to_millivolts
from engine.inference import window_batches
from models.next_sample import samples_ahead

SMALLEST_SPREAD = 0.01  # mV, for leads that are flat in most recordings


def typical_spread(signals):
    """Median over recordings of each lead's mean absolute deviation: arrays (12, T_i) int16 microvolts -> 12 floats
    in mV.
    """
    spreads = [np.abs(x - x.mean(1, keepdims=True)).mean(1) for x in map(to_millivolts, signals)]  # R times (12,)
    return np.maximum(np.median(spreads, axis=0), SMALLEST_SPREAD).tolist()


def error_unit(x, lengths, scale):
    """The spread that errors of each lead of each window are counted in: x (B, 12, L) mV, lengths (B,), scale (12,)
    -> (B, 12).
    """
    valid = (torch.arange(x.shape[-1], device=x.device) < lengths[:, None])[:, None]  # (B, 1, L)
    mean = (x * valid).sum(2, keepdim=True) / lengths[:, None, None]
    return torch.maximum(((x - mean).abs() * valid).sum(2) / lengths[:, None], scale)


def huber(prediction, future, valid, unit):
    """Sum and number of errors at each distance ahead: (B, 12, K, T') twice, valid (B, 1, K, T'), unit (B, 12) ->
    (K,), (K,).
    """
    error = (
        F.smooth_l1_loss(prediction / unit[..., None, None], future / unit[..., None, None], reduction="none") * valid
    )
    return error.sum((0, 1, 3)), valid.sum((0, 1, 3)) * prediction.shape[1]


@torch.inference_mode()
def losses_ahead(predict, signals, seq_length, k_steps_ahead, stride, scale, device="cpu"):
    """Mean loss at each distance ahead over all windows of recordings -> (K,) float64, NaN where nothing lies so far
    ahead.

    predict(x (b, 12, L), lengths (b,)) -> (b, 12, K, T') mV; signals: arrays (12, T_i) int16 microvolts.
    """
    scale = torch.tensor(scale, device=device)
    total, count = np.zeros(len(k_steps_ahead)), np.zeros(len(k_steps_ahead))
    for x, lengths, _ in window_batches(signals, seq_length):
        x, lengths = torch.from_numpy(x).to(device), torch.from_numpy(lengths).to(device)
        _, future, valid = samples_ahead(x, lengths, k_steps_ahead, stride)
        sums, n = huber(predict(x, lengths), future, valid, error_unit(x, lengths, scale))
        total += sums.double().cpu().numpy()
        count += n.cpu().numpy()
    return np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0)
