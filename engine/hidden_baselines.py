"""What a model that predicts hidden samples must beat: a straight line, and the best linear function of other leads."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from data.leads import INDEPENDENT
from data.preprocess import to_millivolts
from engine.hiding import Visible

RIDGE = 1e-6  # of the mean power of the leads: one of them may be silent, or the copy of another


def second_moments(signals: Iterable[np.ndarray]) -> Tensor:
    """(8, 8) float64 mV squared, mean product of each two independent leads over the samples of recordings, arrays
    (12, T_i) int16 microvolts.
    """
    total = np.zeros((len(INDEPENDENT), len(INDEPENDENT)))
    n_samples = 0
    for signal in signals:
        leads = to_millivolts(signal)[list(INDEPENDENT)].astype(np.float64)
        total += leads @ leads.T
        n_samples += leads.shape[1]
    return torch.from_numpy(total / max(n_samples, 1))


def interpolated(visible: Visible) -> Tensor:
    """Prediction (B, 8, L) mV of windows: in a stretch a straight line between the samples beside it, in a hidden lead
    its typical level, zero.
    """
    return bridge(visible.x[:, list(INDEPENDENT)], visible.moments)


def regressed(visible: Visible, moments: Tensor) -> Tensor:
    """Prediction (B, 8, L) mV of windows: a hidden lead is the best linear function of those that are visible at the
    same moment, the conditional mean of a Gaussian; in a stretch, where none is, `interpolated`.

    Args:
        visible: what is left of the windows.
        moments: (8, 8) `second_moments`.
    """
    shown = visible.leads.to(moments)  # (B, 8)
    ridge = RIDGE * moments.diagonal().mean() + 1e-12
    # Rows and columns of hidden leads are those of a unit matrix, so that one equation fits all windows.
    among = shown[:, :, None] * moments * shown[:, None] + torch.diag_embed(1 - shown + ridge)  # (B, 8, 8)
    weights = torch.linalg.solve(among, shown[:, :, None] * moments).mT  # (B, 8, 8), from visible leads to all
    x = visible.x[:, list(INDEPENDENT)]  # (B, 8, L)
    estimate = (weights * shown[:, None]).to(x.dtype) @ x
    return torch.where(visible.moments[:, None], estimate, interpolated(visible))


def bridge(x: Tensor, moments: Tensor) -> Tensor:
    """Replace x (B, 8, L) where `moments` (B, L) is False by a straight line between the samples beside; at an end of
    the window the nearest one is held.
    """
    n_samples = x.shape[2]
    time = torch.arange(n_samples, device=x.device)
    before = torch.where(moments, time, -1).cummax(1).values  # (B, L), the last visible moment
    after = torch.where(moments, time, n_samples).flip(1).cummin(1).values.flip(1)  # the next one
    first = torch.where(before < 0, after, before).clamp(0, n_samples - 1)
    last = torch.where(after >= n_samples, before, after).clamp(0, n_samples - 1)
    share = (time - first) / (last - first).clamp(min=1)  # (B, L)
    share = share.clamp(0, 1).to(x.dtype)[:, None]
    ends = [x.gather(2, place[:, None].expand_as(x)) for place in (first, last)]
    return torch.lerp(*ends, share)
