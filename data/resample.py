"""Change of sampling rate by a polyphase filter: what scipy.signal.resample_poly computes, several times faster.

The filter is the default one of resample_poly: a Kaiser window (beta 5) over 10 zero crossings to either side, cut
off at the lower of the two Nyquist frequencies. The ends of a signal are continued by their last value; zeros would
ring in every lead with an offset.
"""

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch

# of the fraction fs_out / fs_in: a ratio is met to 1/50,000 or better, 0.2 ms over 10 s; common rates exactly
MAX_TERM = 50_000
_MAX_BANK = 2**19  # weights in a filter bank; odder ratios than that are computed output by output
_BLOCK = 2**17  # input samples of all leads at a time, so that memory stays bounded


def resample(x: np.ndarray, fs_in: float, fs_out: float) -> np.ndarray:
    """Change the sampling rate; sample 0 stays at time 0.

    Args:
        x: (n_leads, n) float32.
        fs_in: Its rate, Hz.
        fs_out: The rate that is wanted, Hz.

    Returns:
        (n_leads, ceil(n fs_out / fs_in)) float32; x itself where the rates are equal.

    Raises:
        ValueError: A rate is not positive, or their ratio is beyond 1 to 50,000.
    """
    up, down = ratio(fs_in, fs_out)
    if up == down or x.shape[1] == 0:
        return x
    length = -(-x.shape[1] * up // down)
    if up * (2 * _half_length(up, down) // up + down) <= _MAX_BANK:
        return _by_bank(x, up, down, length)
    return _by_output(x, up, down, length)


@lru_cache(maxsize=256)
def ratio(fs_in: float, fs_out: float) -> tuple[int, int]:
    """-> up, down: the fraction nearest to fs_out / fs_in with terms up to MAX_TERM."""
    if not (0 < fs_in < math.inf and 0 < fs_out < math.inf and 1 / MAX_TERM <= fs_out / fs_in <= MAX_TERM):
        raise ValueError(f"cannot resample from {fs_in:g} Hz to {fs_out:g} Hz")
    exact = Fraction(fs_out) / Fraction(fs_in)
    if exact <= 1:
        near = exact.limit_denominator(MAX_TERM)
    else:
        near = 1 / (1 / exact).limit_denominator(MAX_TERM)
    return near.numerator, near.denominator


def _half_length(up, down):
    return 10 * max(up, down)


@lru_cache(maxsize=16)
def _filter(up, down):
    """Low-pass at the rate of `up` times the input, (2 half_length + 1,) float64."""
    half_length = _half_length(up, down)
    h = np.sinc(np.arange(-half_length, half_length + 1) / max(up, down)) * np.kaiser(2 * half_length + 1, 5.0)
    return up * (h / h.sum())


@lru_cache(maxsize=16)
def _bank(up, down):
    """-> weights (width, n_outputs) float32, offset of their first row against the input sample of output 0.

    Output m is the sum over n of x[n] h[m * down - n * up], h being the filter centred at 0. The weights recur after
    `up` outputs and `down` inputs, so that n_outputs (a multiple of `up`) are a product of a stretch of the input and
    one matrix; the next stretch begins n_outputs * down / up samples later. At least 16 outputs, for a narrower matrix
    is multiplied at a fraction of its speed, and a wider one is mostly zeros.
    """
    half_length = _half_length(up, down)
    h = _filter(up, down)
    n_outputs = up * max(1, 16 // up)
    first = -(half_length // up)
    last = ((n_outputs - 1) * down + half_length) // up
    tap = np.arange(n_outputs)[:, None] * down - np.arange(first, last + 1) * up + half_length  # (n_outputs, width)
    inside = (tap >= 0) & (tap < len(h))
    weights = np.where(inside, h[np.clip(tap, 0, len(h) - 1)], 0)
    return torch.from_numpy(weights.T.astype(np.float32, order="C")), first


def _by_bank(x, up, down, length):
    weights, first = _bank(up, down)
    n_leads = len(x)
    width, n_outputs = weights.shape
    stride = n_outputs // up * down
    n_frames = -(-length // n_outputs)
    out = np.empty((n_leads, n_frames, n_outputs), np.float32)
    step = max(1, _BLOCK // (n_leads * stride))
    for frame in range(0, n_frames, step):
        stop = min(frame + step, n_frames)
        start = frame * stride + first
        part = torch.from_numpy(_with_edges(x, start, start + (stop - frame - 1) * stride + width))
        stretches = part.unfold(1, width, stride).reshape(-1, width)  # (n_leads * frames, width)
        out[:, frame:stop] = (stretches @ weights).numpy().reshape(n_leads, -1, n_outputs)
    return np.ascontiguousarray(out.reshape(n_leads, -1)[:, :length])


def _by_output(x, up, down, length):
    """The same sum with the weights of each output looked up: for ratios such as 10000 / 49993."""
    half_length = _half_length(up, down)
    h = _filter(up, down).astype(np.float32)
    reach = half_length // up + 1
    columns = np.arange(-reach, reach + 1)
    out = np.empty((len(x), length), np.float32)
    step = max(1, _BLOCK // (len(x) * len(columns)))
    for begin in range(0, length, step):
        position = np.arange(begin, min(begin + step, length)) * down  # in units of 1 / (up * fs_in)
        nearest = position // up
        tap = (position - nearest * up)[:, None] - columns * up + half_length  # (outputs, columns)
        inside = (tap >= 0) & (tap < len(h))
        weights = np.where(inside, h[np.clip(tap, 0, len(h) - 1)], np.float32(0))
        part = _with_edges(x, nearest[0] - reach, nearest[-1] + reach + 1)
        samples = part[:, nearest[:, None] - nearest[0] + reach + columns]  # (n_leads, outputs, columns)
        out[:, begin : begin + len(position)] = np.einsum("lok,ok->lo", samples, weights)
    return out


def _with_edges(x, start, stop):
    """x[:, start:stop], where indices outside of x give its first or last sample; contiguous."""
    n = x.shape[1]
    part = np.empty((len(x), stop - start), np.float32)
    left = min(max(-start, 0), stop - start)
    right = max(stop - n, 0)
    inner = part[:, left : part.shape[1] - right] if right < part.shape[1] else part[:, :0]
    inner[:] = x[:, max(start, 0) : max(start, 0) + inner.shape[1]]
    part[:, :left] = x[:, :1]
    if right:
        part[:, max(part.shape[1] - right, 0) :] = x[:, -1:]
    return part
