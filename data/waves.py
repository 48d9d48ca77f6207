"""Widths, intervals, axes and heights of the waves of median beats, of many recordings at once.

Plain on purpose: the QRS complex ends where no lead moves fast any more, waves are extremes of what lies before and
after it. tests/reference/plain_waves.py has the same for one beat, without the masks that many at once need.
"""

from __future__ import annotations

import numpy as np

from data.filters import row_quantiles

QUIET = 0.02  # s without fast movement: the QRS complex is over
SLOW = 0.12  # share of the QRS complex's highest speed that counts as fast
ONSET = 0.18  # s before the R peak where the QRS complex begins at the earliest
END = 0.2  # s after it where it ends at the latest
LOW = 0.3  # share of its height at which a P or T wave begins or ends

WHOLE = (
    "qrs_duration",  # ms, as all durations
    "qrs_axis",  # degrees
    "t_axis",
    "qrs_t_angle",
    "limb_height",  # mV, as all heights: of the QRS complex from top to bottom, the highest of the limb leads
    "chest_height",
    "t_peak",  # from the beginning of the QRS complex
    "qt",
    "qt_bazett",
    "qt_fridericia",
    "p_peak",  # before the QRS complex, as is the next
    "pr",
    "p_height",
)
OF_LEAD = (
    "q",
    "r",
    "s",
    "r2",  # second R wave
    "q_duration",
    "q_to_r",
    "r_time",
    "qrs_area",
    "j",
    "st",  # 60 ms after J
    "t",  # the larger of the next two
    "t_top",
    "t_bottom",
    "t_mean",
    "t_to_qrs",
    "p",
)


def measure_waves(
    beats: np.ndarray, centre: int, rate: float, typical: np.ndarray, there: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """-> (R, len(WHOLE)), (R, 12 len(OF_LEAD)): each of OF_LEAD in all leads, then the next. NaN where unknown.

    Args:
        beats: (R, 12, P) mV, leads as in data.leads.LEADS, from 0.4 s before the R peak to 0.6 s after it.
        centre: sample of the R peak.
        rate: samples a second.
        typical: (R,) RR interval, s, or NaN.
        there: (R, 12) bool, leads that were recorded.
    """
    onset, end = _qrs_limits(beats, centre, rate)
    segment = onset[:, None] - np.arange(round(0.024 * rate), round(0.004 * rate), -1)  # before the QRS complex
    beats = beats - _at(beats, segment).mean(2, keepdims=True)  # the PR segment is zero
    whole, of_lead = _qrs(beats, centre, onset, end, rate)
    for waves in (_t_waves(beats, onset, end, rate, typical), _p_waves(beats, onset, rate)):
        whole |= waves[0]
        of_lead |= waves[1]
    of_lead["t_to_qrs"] = of_lead["t"] / (of_lead["r"] - of_lead["s"] + 0.1)
    whole["qrs_t_angle"] = np.abs((whole["qrs_axis"] - whole["t_axis"] + 180) % 360 - 180)
    of_frontal_plane = there[:, :2].all(1)  # an axis needs two limb leads, from which preprocessing computes the others
    for name in ("qrs_axis", "t_axis", "qrs_t_angle"):
        whole[name] = np.where(of_frontal_plane, whole[name], np.nan)
    whole["chest_height"] = np.where(there[:, 6:].any(1), whole["chest_height"], np.nan)
    values = np.stack([whole[name] for name in WHOLE], 1)
    in_leads = np.stack([np.where(there, of_lead[name], np.nan) for name in OF_LEAD], 1)  # (R, len(OF_LEAD), 12)
    return values, in_leads.reshape(len(beats), -1)


def _at(beats, samples):
    """(R, 12, P) and (R, n) samples of each beat -> (R, 12, n)."""
    return np.take_along_axis(beats, samples[:, None], 2)


def _first(holds, otherwise):
    """(R, n) bool, (R,) -> (R,), the first place where it holds, or otherwise."""
    return np.where(holds.any(1), holds.argmax(1), otherwise)


def _last(holds, otherwise):
    return np.where(holds.any(1), holds.shape[1] - 1 - holds[:, ::-1].argmax(1), otherwise)


def _sums(x, n):
    """(R, m) -> (R, m - n + 1), of n neighbours each."""
    return np.lib.stride_tricks.sliding_window_view(x, n, 1).sum(2)


def _qrs_limits(beats, centre, rate):
    """-> (R,) first sample of the QRS complex and (R,) its last, from ONSET before to END after the R peak."""
    speed = np.sqrt((np.diff(beats, axis=2) ** 2).mean(1))  # (R, P - 1)
    speed = _sums(np.pad(speed, ((0, 0), (2, 2))), 5) / 5
    reach = round(0.12 * rate)
    fastest = centre - reach + speed[:, centre - reach : centre + reach].argmax(1)[:, None]  # (R, 1)
    slow = speed < SLOW * np.take_along_axis(speed, fastest, 1) + row_quantiles(speed, 0.2)
    width = round(QUIET * rate)
    quiet = _sums(slow, width) == width  # (R, P - width), from here on for QUIET
    first = centre - round(ONSET * rate)
    last = centre + round(END * rate)
    sample = np.arange(quiet.shape[1])
    calm = _last(quiet & (sample >= first) & (sample <= fastest - width), first - width)
    end = _first(quiet & (sample >= fastest) & (sample <= last), last)
    onset = calm + width
    return onset, np.maximum(end, onset + 1)


def _qrs(beats, centre, onset, end, rate):
    """-> {name: (R,)} and {name: (R, 12)}."""
    first = centre - round(ONSET * rate)
    sample = np.arange(first, centre + round(END * rate) + 1)  # (n,)
    inside = ((sample >= onset[:, None]) & (sample <= end[:, None]))[:, None]  # (R, 1, n)
    qrs = beats[:, :, first : first + len(sample)]
    high = np.where(inside, qrs, -np.inf)
    top = first + high.argmax(2)[..., None]  # (R, 12, 1)
    highest = high.max(2)
    lowest = np.where(inside, qrs, np.inf).min(2)
    r = np.maximum(highest, 0)
    until = inside & (sample <= top)
    q = np.where(until, qrs, 0).min(2)
    after = np.where(inside & (sample >= top), qrs, 0)
    s = after.min(2)
    bottom = first + after.argmin(2)[..., None]  # (R, 12, 1)
    r2 = np.where(inside & (sample >= bottom), qrs, 0).max(2)
    area = np.where(inside, qrs, 0).sum(2) * 1000 / rate  # mV ms
    height = highest - lowest
    late = end + round(0.06 * rate)
    whole = {
        "qrs_duration": (end - onset) * 1000 / rate,
        "qrs_axis": _axis(area),
        "limb_height": height[:, :6].max(1),
        "chest_height": height[:, 6:].max(1),
    }
    of_lead = {
        "q": q,
        "r": r,
        "s": s,
        "r2": np.where(s < 0, r2, 0),
        "q_duration": ((qrs < -0.03) & until).sum(2) * 1000 / rate,
        "q_to_r": -q / (r + 0.05),
        "r_time": (top[..., 0] - onset[:, None]) * 1000 / rate,
        "qrs_area": area,
        "j": _at(beats, end[:, None])[..., 0],
        "st": _at(beats, late[:, None])[..., 0],
    }
    return whole, of_lead


def _axis(x):
    """Direction in the frontal plane, degrees (R,), of something measured in each lead (R, 12)."""
    return np.degrees(np.arctan2((x[:, 1] + x[:, 2]) / np.sqrt(3), x[:, 0]))


def _t_waves(beats, onset, end, rate, typical):
    """-> {name: (R,)} and {name: (R, 12)}."""
    reach = np.where(np.isnan(typical), 0.45, np.minimum(0.45, 0.6 * typical))  # s, before the next P wave
    first = end + round(0.06 * rate)  # (R,)
    stop = np.minimum(end + np.rint(reach * rate).astype(int), beats.shape[2])
    begin = first.min()
    sample = np.arange(begin, beats.shape[2])  # (n,)
    inside = (sample >= first[:, None]) & (sample < stop[:, None])  # (R, n)
    t = beats[:, :, begin:]  # (R, 12, n)
    high = np.where(inside[:, None], t, -np.inf).max(2)
    low = np.where(inside[:, None], t, np.inf).min(2)
    mean = np.where(inside[:, None], t, 0).sum(2) / np.maximum(inside.sum(1), 1)[:, None]
    size = np.sqrt((t**2).mean(1))  # (R, n)
    size = np.where(inside, size, -1)
    peak = size.argmax(1)[:, None]  # (R, 1)
    over = size < LOW * np.take_along_axis(size, peak, 1)  # outside it is, too
    over = over & (np.arange(len(sample)) >= peak)
    qt = (begin + _first(over, len(sample)) - onset) / rate  # s
    usual = np.clip(typical, 0.3, 1.7)
    whole = {
        "t_axis": _axis(mean),
        "t_peak": (begin + peak[:, 0] - onset) * 1000 / rate,
        "qt": 1000 * qt,
        "qt_bazett": 1000 * qt / np.sqrt(usual),
        "qt_fridericia": 1000 * qt / np.cbrt(usual),
    }
    of_lead = {"t": np.where(high > -low, high, low), "t_top": high, "t_bottom": low, "t_mean": mean}
    return whole, of_lead


def _p_waves(beats, onset, rate):
    """-> {name: (R,)} and {name: (R, 12)}."""
    first = np.maximum(0, onset - round(0.3 * rate))  # (R,)
    gap = round(0.03 * rate)
    stop = onset - gap
    length = (stop - first)[:, None, None]  # (R, 1, 1)
    begin = first.min()
    sample = np.arange(begin, stop.max())  # (n,)
    inside = (sample >= first[:, None]) & (sample < stop[:, None])  # (R, n)
    five = np.arange(5)
    left = _at(beats, first[:, None] + five).mean(2, keepdims=True)
    right = _at(beats, stop[:, None] - 5 + five).mean(2, keepdims=True)
    along = (sample - first[:, None])[:, None] / (length - 1)  # (R, 1, n), 0 to 1
    p = beats[:, :, begin : stop.max()] - left - (right - left) * along.astype(np.float32)  # (R, 12, n)
    size = np.where(inside, np.sqrt((p**2).mean(1)), -1)  # (R, n)
    peak = size.argmax(1)[:, None]  # (R, 1)
    height = np.take_along_axis(size, peak, 1)
    small = inside & (size < LOW * height) & (np.arange(len(sample)) <= peak)
    begins = begin + _last(small, first - begin)
    whole = {
        "p_peak": (onset - begin - peak[:, 0]) * 1000 / rate,
        "pr": (onset - begins) * 1000 / rate,
        "p_height": height[:, 0],
    }
    return whole, {"p": _at(p, peak)[..., 0]}
