"""What is measured on an ECG by hand: widths, intervals, axes and heights of waves, on a recording's median beat.

    python -c "from data.measures import NAMES; print(NAMES)"

A network learns shapes from examples; with few thousand of them it does not learn to measure. `engine.forest` decides
on these numbers beside it. docs/results.md says what they are worth. The median beats of many recordings are measured
at once (`data.waves`): one by one, most of the time went into calling NumPy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from data.beats import resemble_median, row_median
from data.covariates import N_COVARIATES
from data.leads import LEADS
from data.preprocess import to_millivolts
from data.rhythm import BAND, MIN_INTERVALS, r_peaks
from data.waves import OF_LEAD, WHOLE, measure_waves

BEFORE = 0.4  # s of the median beat before the R peak
AFTER = 0.6  # s after it
FINE_RATE = 500  # Hz, about: the median beat is interpolated to it
MAX_BEATS = 200  # of which the median is taken, evenly spaced where a recording has more
AT_ONCE = 64  # recordings whose median beats are measured together

RHYTHM = (
    "beats",
    "rr",  # s, median
    "rr_variation",  # standard deviation over mean
    "rr_shortest",  # over the median, as are the next four
    "rr_longest",
    "rr_spread",  # interquartile range
    "rr_step",  # root mean square of the differences of neighbours
    "rr_typical_step",  # their median
)
LIKENESS = (
    "likeness_worst",  # correlation of the beat that is least like the median beat
    "likeness_second",  # mean of the two least
    "likeness_typical",  # median
    "other_beats",  # number of beats unlike it
    "other_early",  # RR interval before the earliest of them, over the median
    "usual_early",  # the same of beats like it
)
CONSTANCY = (
    "p_constancy",  # share of what moves before the QRS complex that is the same in every beat
    "p_noise",  # mV
)
_IN_LEADS = [f"{name} {lead}" for name in OF_LEAD for lead in LEADS]
NAMES = (*RHYTHM, *LIKENESS, *WHOLE, *CONSTANCY, *_IN_LEADS)  # forests know them by their places
_PARTS = np.cumsum([len(RHYTHM), len(LIKENESS), len(WHOLE), len(CONSTANCY)])
N_MEASURES = len(NAMES)
N_NUMBERS = N_MEASURES + N_COVARIATES + len(LEADS)


def recording_numbers(signals: Iterable[np.ndarray], sample_freq: float, covariates: np.ndarray) -> np.ndarray:
    """(R, N_NUMBERS) float32, what a forest decides on: `measure`, the covariates, and 1 for each lead that is missing.
    A row is all NaN where no whole beat is found: then a forest has nothing to say.

    Args:
        signals: R arrays (12, T_i) int16 microvolts, leads as in LEADS; asked for one after the other.
        sample_freq: Hz.
        covariates: (R, N_COVARIATES), see data.covariates.
    """
    values, there = _measured(map(to_millivolts, signals), sample_freq)
    numbers = np.concatenate([values, covariates, ~there], axis=1, dtype=np.float32)
    numbers[np.isnan(numbers[:, NAMES.index("qrs_duration")])] = np.nan
    return numbers


def measure(signals: Iterable[np.ndarray], sample_freq: float) -> np.ndarray:
    """(R, N_MEASURES) float32 in the order of NAMES, NaN where there is nothing to measure: no beats are found, a lead
    is missing (zero throughout), or the rate is too low to see a QRS complex.

    Args:
        signals: R arrays (12, T_i) mV, leads as in LEADS.
        sample_freq: Hz.
    """
    return _measured(signals, sample_freq)[0]


def _measured(signals, sample_freq):
    """-> (R, N_MEASURES) float32; (R, 12) bool, leads that are there. Of few signals at a time, for memory's sake."""
    values = [np.zeros((0, N_MEASURES), np.float32)]
    there = [np.zeros((0, len(LEADS)), bool)]
    signals = iter(signals)
    while summaries := [_summary(signal, sample_freq) for signal in islice(signals, AT_ONCE)]:
        values.append(_values(summaries, sample_freq))
        there.append([summary.there for summary in summaries])
    return np.concatenate(values), np.concatenate(there)


def _values(summaries, sample_freq):
    """(R, N_MEASURES) float32."""
    values = np.full((len(summaries), N_MEASURES), np.nan, np.float32)
    rhythm, likeness, whole, constancy, in_leads = np.split(values, _PARTS, axis=1)  # views
    for row, summary in enumerate(summaries):
        rhythm[row] = summary.rhythm
        likeness[row] = summary.likeness
        constancy[row] = summary.constancy
    rows = [row for row, summary in enumerate(summaries) if summary.median is not None]
    if rows:
        fine, factor = _interpolated(np.stack([summaries[row].median for row in rows]), sample_freq)
        rr = np.array([summaries[row].rr for row in rows])
        there = np.stack([summaries[row].there for row in rows])
        centre = round(BEFORE * sample_freq) * factor
        whole[rows], in_leads[rows] = measure_waves(fine, centre, sample_freq * factor, rr, there)
    return values


@dataclass
class Summary:
    """A recording as its median beat, and how its beats compare; NaN where that is not known."""

    there: np.ndarray  # (12,) bool, leads that are there
    rhythm: Sequence[float] = (np.nan,) * len(RHYTHM)
    likeness: Sequence[float] = (np.nan,) * len(LIKENESS)
    constancy: Sequence[float] = (np.nan,) * len(CONSTANCY)
    median: np.ndarray | None = None  # (12, P) mV; None where no beat lies within the recording as a whole
    rr: float = np.nan  # s, median RR interval


def _summary(signal, sample_freq):
    """Summary of a signal (12, T) mV."""
    summary = Summary(signal.any(axis=1))
    if sample_freq <= 2 * BAND[1] or signal.shape[1] < sample_freq:
        return summary
    peaks = r_peaks(signal, sample_freq)
    summary.rhythm = _rhythm(peaks / sample_freq)
    before = round(BEFORE * sample_freq)
    after = round(AFTER * sample_freq)
    number = np.flatnonzero((peaks >= before) & (peaks + after <= signal.shape[1]))  # of each whole beat
    if not len(number):
        return summary
    if len(number) > MAX_BEATS:
        number = number[np.linspace(0, len(number) - 1, MAX_BEATS).astype(int)]
    beats = signal[:, peaks[number][:, None] + np.arange(-before, after)].transpose(1, 0, 2)  # (n, 12, P)
    beats = beats - signal.mean(axis=1)[:, None]
    flat = beats.reshape(len(number), -1)  # (n, 12 P)
    usual, resemblance, median = resemble_median(flat)
    intervals = np.diff(peaks) / sample_freq  # s
    if len(intervals):
        summary.rr = row_median(intervals)
    summary.likeness = _likeness(np.r_[np.nan, intervals / summary.rr][number], usual, resemblance)
    if 1 < usual.sum() < len(usual):
        beats = beats[usual]
        median = row_median(flat[usual])
    summary.median = median.reshape(beats.shape[1:])
    summary.constancy = _constancy(beats, before, sample_freq)
    return summary


def _rhythm(times):
    """Times of the R peaks, s -> len(RHYTHM) numbers."""
    intervals = np.diff(times)
    if len(intervals) < MIN_INTERVALS:
        return [len(times), *[np.nan] * (len(RHYTHM) - 1)]
    order = np.sort(intervals)
    typical = _quantile(order, 0.5)
    steps = np.diff(intervals)
    return [
        len(times),
        typical,
        intervals.std() / intervals.mean(),
        order[0] / typical,
        order[-1] / typical,
        (_quantile(order, 0.75) - _quantile(order, 0.25)) / typical,
        np.sqrt((steps**2).mean()) / typical,
        _quantile(np.sort(np.abs(steps)), 0.5) / typical,
    ]


def _quantile(order, q):
    """Of numbers (n,) in ascending order, interpolated."""
    place = q * (len(order) - 1)
    low = int(place)
    return order[low] + (order[min(low + 1, len(order) - 1)] - order[low]) * (place - low)


def _likeness(early, usual, resemblance):
    """The numbers of LIKENESS, of the whole beats.

    Args:
        early: (n,) RR interval before each over the median, NaN of the first.
        usual: (n,) bool, it resembles the median beat.
        resemblance: (n,) its correlation with that.
    """
    order = np.sort(resemblance)
    return (
        order[0],
        order[:2].mean(),
        order[len(order) // 2],
        (~usual).sum(),
        np.nanmin(early[~usual], initial=1),
        np.nanmin(early[usual], initial=1),
    )


def _constancy(beats, before, sample_freq):
    """The numbers of CONSTANCY: how alike beats (n, 12, P) are where P waves would be, 0.34 to 0.07 s before R."""
    if len(beats) < 2:
        return np.nan, np.nan
    part = beats[:, :, max(0, before - round(0.34 * sample_freq)) : before - round(0.07 * sample_freq)]
    part = part - part.mean(2, keepdims=True)
    mean = part.mean(0)  # (12, p)
    total = (part**2).sum() / len(part)
    return (mean**2).sum() / (total + 1e-6), np.sqrt(((part - mean) ** 2).mean())


def _interpolated(beats, sample_freq):
    """(R, 12, P) -> ((R, 12, P * factor) float32, factor): band-limited, at about FINE_RATE."""
    factor = max(1, round(FINE_RATE / sample_freq))
    if factor == 1:
        return beats, 1
    n = beats.shape[2]
    slope = (beats[..., -1:] - beats[..., :1]) / (n - 1)  # without it the ends would ring, for they do not meet
    spectrum = np.fft.rfft(beats - slope * np.arange(n, dtype=np.float32))
    fine = factor * np.fft.irfft(spectrum, n * factor)
    return (fine + slope * (np.arange(n * factor) / factor)).astype(np.float32), factor
