"""Peaks of a curve: those that scipy.signal.find_peaks finds, whose import takes longer than a recording."""

import math
from collections.abc import Sequence

import numpy as np


def find_peaks(x: np.ndarray, distance: float, height: float, prominence: float) -> np.ndarray:
    """Local maxima of a curve that are high, stand out and are not too close to each other.

    Args:
        x: (n,) float64, finite, n > 0.
        distance: Samples between two peaks at least; of closer ones the lower goes. This comes before `prominence`.
        height: Lowest height of a peak.
        prominence: Lowest height over the higher one of the two valleys that part a peak from higher ones, or from the
            ends of x.

    Returns:
        (n_peaks,) int, samples in ascending order; of a plateau the middle one, the left of two.
    """
    peaks = _local_maxima(x)
    heights = x[peaks]
    peaks = peaks[heights >= height]
    heights = x[peaks]
    keep = _far_apart(peaks, heights, distance)
    keep &= _prominences(x, peaks, heights) >= prominence
    return peaks[keep]


def _local_maxima(x):
    before = np.flatnonzero(x[1:] != x[:-1])  # the last sample of each plateau, most of which are one sample long
    rises = (x[1:] > x[:-1])[before]
    top = np.flatnonzero(rises[:-1] & ~rises[1:])
    return (before[top] + 1 + before[top + 1]) // 2


def _far_apart(peaks, heights, distance):
    """(n_peaks,) bool: the peaks that stay where each, from the highest on, removes those beside it."""
    distance = math.ceil(distance)  # before anything is subtracted: 0.28 * 100 is somewhat more than 28
    first = np.searchsorted(peaks, peaks - distance, "right").tolist()
    stop = np.searchsorted(peaks, peaks + distance, "left").tolist()
    keep = np.ones(len(peaks), bool)
    for i in np.argsort(heights)[::-1].tolist():
        if keep[i]:
            keep[first[i] : stop[i]] = False
            keep[i] = True
    return keep


def _prominences(x, peaks, heights):
    """(n_peaks,). Whatever is higher than one of the peaks is, or leads up to, another one of them or an end of x."""
    valleys = np.minimum.reduceat(x, [0, *peaks.tolist()]).tolist()  # before the first peak, ..., after the last one
    tops = heights.tolist()
    left = _lowest_since_higher(tops, valleys[:-1])
    right = _lowest_since_higher(tops[::-1], valleys[:0:-1])[::-1]
    return heights - np.maximum(left, right)


def _lowest_since_higher(tops: Sequence[float], valleys: Sequence[float]) -> list[float]:
    """For each peak the lowest of the valleys between it and the last higher one, or the start; valleys[i] lies before
    tops[i]. One pass, with the peaks that are higher than all after them on a stack.
    """
    lowest = []
    higher = []  # (top, lowest before it)
    for top, low in zip(tops, valleys):
        while higher and higher[-1][0] <= top:
            low = min(low, higher.pop()[1])
        higher.append((top, low))
        lowest.append(low)
    return lowest
