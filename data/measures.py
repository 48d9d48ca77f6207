"""What is measured on an ECG by hand: widths, intervals, axes and heights of waves, on a recording's median beat.

    python -c "from data.measures import NAMES; print(NAMES)"

A network learns shapes from examples; with few thousand of them it does not learn to measure. `engine.forest` decides
on these numbers beside it. They are plain: the QRS complex ends where no lead moves fast any more, waves are extremes
of what lies before and after it. docs/results.md says what they are worth.
"""

import numpy as np

from data.beats import resemble_median, row_median
from data.covariates import N_COVARIATES
from data.filters import row_quantiles
from data.leads import LEADS
from data.preprocess import to_millivolts
from data.rhythm import BAND, MIN_INTERVALS, r_peaks

BEFORE = 0.4  # s of the median beat before the R peak
AFTER = 0.6  # s after it
FINE_RATE = 500  # Hz, about: the median beat is interpolated to it
MAX_BEATS = 200  # of which the median is taken, evenly spaced where a recording has more
QUIET = 0.02  # s without fast movement: the QRS complex is over
SLOW = 0.12  # share of the QRS complex's highest speed that counts as fast

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
    "p_constancy",  # share of what moves before the QRS complex that is the same in every beat
    "p_noise",
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
_WITH_LEADS = {name: [f"{name} {lead}" for lead in LEADS] for name in OF_LEAD}
NAMES = (*RHYTHM, *LIKENESS, *WHOLE, *(name for names in _WITH_LEADS.values() for name in names))
N_MEASURES = len(NAMES)
N_NUMBERS = N_MEASURES + N_COVARIATES + len(LEADS)


def recording_numbers(signal: np.ndarray, sample_freq: float, covariates: np.ndarray) -> np.ndarray:
    """(N_NUMBERS,) float32, what a forest decides on: `measure`, the covariates, and 1 for each lead that is missing.
    All NaN where no whole beat is found: then a forest has nothing to say.

    Args:
        signal: (12, T) int16 microvolts, leads as in LEADS.
        sample_freq: Hz.
        covariates: (N_COVARIATES,), see data.covariates.
    """
    values = measure(to_millivolts(signal), sample_freq)
    if np.isnan(values[NAMES.index("qrs_duration")]):
        return np.full(N_NUMBERS, np.nan, np.float32)
    missing = ~signal.any(axis=1)
    return np.concatenate([values, covariates, missing], dtype=np.float32)


def measure(signal: np.ndarray, sample_freq: float) -> np.ndarray:
    """(N_MEASURES,) float32 in the order of NAMES, NaN where there is nothing to measure: no beats are found, a lead is
    missing (zero throughout), or the rate is too low to see a QRS complex.

    Args:
        signal: (12, T) mV, leads as in LEADS.
        sample_freq: Hz.
    """
    values = dict.fromkeys(NAMES, np.nan)
    if sample_freq > 2 * BAND[1] and signal.shape[1] >= sample_freq:
        peaks = r_peaks(signal, sample_freq)
        values |= _rhythm(peaks / sample_freq)
        values |= _shape(signal, peaks, sample_freq)
    return np.fromiter(map(values.__getitem__, NAMES), np.float32, N_MEASURES)


def _rhythm(times):
    """Times of the R peaks, s -> {name of RHYTHM: number}."""
    intervals = np.diff(times)
    if len(intervals) < MIN_INTERVALS:
        return {"beats": len(times)}
    typical = row_median(intervals)
    steps = np.diff(intervals)
    order = np.sort(intervals)
    low, high = np.interp((0.25, 0.75), np.linspace(0, 1, len(order)), order)
    values = (
        len(times),
        typical,
        intervals.std() / intervals.mean(),
        order[0] / typical,
        order[-1] / typical,
        (high - low) / typical,
        np.sqrt((steps**2).mean()) / typical,
        row_median(np.abs(steps)) / typical,
    )
    return dict(zip(RHYTHM, values))


def _shape(signal, peaks, sample_freq):
    """{name: number} of all but RHYTHM, or nothing where no beat lies within the recording as a whole."""
    before = round(BEFORE * sample_freq)
    after = round(AFTER * sample_freq)
    number = np.flatnonzero((peaks >= before) & (peaks + after <= signal.shape[1]))  # of each whole beat
    if not len(number):
        return {}
    if len(number) > MAX_BEATS:
        number = number[np.linspace(0, len(number) - 1, MAX_BEATS).astype(int)]
    beats = signal[:, peaks[number][:, None] + np.arange(-before, after)].transpose(1, 0, 2)  # (n, 12, P)
    beats = beats - signal.mean(axis=1)[:, None]
    flat = beats.reshape(len(number), -1)  # (n, 12 P)
    usual, likeness, median = resemble_median(flat)
    intervals = np.diff(peaks) / sample_freq  # s
    typical = row_median(intervals) if len(intervals) else np.nan
    values = _likeness(np.r_[np.nan, intervals / typical][number], usual, likeness)
    if 1 < usual.sum() < len(usual):
        beats = beats[usual]
        median = row_median(flat[usual])
    fine, factor = _interpolated(median.reshape(beats.shape[1:]), sample_freq)
    values |= _waves(fine, before * factor, sample_freq * factor, typical, signal.any(axis=1))
    return values | _constancy(beats, before, sample_freq)


def _likeness(early, usual, likeness):
    """{name of LIKENESS: number} of the whole beats.

    Args:
        early: (n,) RR interval before each over the median, NaN of the first.
        usual: (n,) bool, it resembles the median beat.
        likeness: (n,) its correlation with that.
    """
    order = np.sort(likeness)
    values = (
        order[0],
        order[:2].mean(),
        order[len(order) // 2],
        (~usual).sum(),
        np.nanmin(early[~usual], initial=1),
        np.nanmin(early[usual], initial=1),
    )
    return dict(zip(LIKENESS, values))


def _interpolated(median, sample_freq):
    """(12, P) -> ((12, P * factor), factor): band-limited, at about FINE_RATE."""
    factor = max(1, round(FINE_RATE / sample_freq))
    if factor == 1:
        return median, 1
    n = median.shape[1]
    slope = (median[:, -1:] - median[:, :1]) / (n - 1)  # without it the ends would ring, for they do not meet
    spectrum = np.fft.rfft(median - slope * np.arange(n), axis=1)
    fine = factor * np.fft.irfft(spectrum, n * factor, axis=1)
    return fine + slope * (np.arange(n * factor) / factor), factor


def _waves(beat, centre, rate, typical, there):
    """{name: number} of the median beat.

    Args:
        beat: (12, P) mV.
        centre: sample of the R peak.
        rate: samples a second.
        typical: RR interval, s, or NaN.
        there: (12,) bool, leads that were recorded.
    """
    onset, end = _qrs_limits(beat, centre, rate)
    before = slice(max(0, onset - round(0.024 * rate)), max(1, onset - round(0.004 * rate)))
    beat = beat - beat[:, before].mean(1, keepdims=True)  # the PR segment is zero
    of_lead = {}
    values = _qrs(beat, onset, end, rate, of_lead)
    values |= _t_wave(beat, onset, end, rate, typical, of_lead)
    values |= _p_wave(beat, onset, rate, of_lead)
    angle = (values["qrs_axis"] - values.get("t_axis", np.nan) + 180) % 360 - 180
    values["qrs_t_angle"] = abs(angle)
    for name, row in of_lead.items():  # (12,)
        values |= zip(_WITH_LEADS[name], np.where(there, row, np.nan).tolist())
    if not there[:2].all():  # an axis needs two limb leads, from which preprocessing computes the others
        values |= dict.fromkeys(("qrs_axis", "t_axis", "qrs_t_angle"), np.nan)
    if not there[6:].any():
        values["chest_height"] = np.nan
    return values


def _qrs_limits(beat, centre, rate):
    """-> (first sample of the QRS complex, its last), within 180 ms before and 200 ms after the R peak."""
    speed = np.sqrt((np.diff(beat, axis=1) ** 2).mean(0))  # (P - 1,)
    speed = np.convolve(speed, np.full(5, 1 / 5), "same")
    reach = round(0.12 * rate)
    fastest = centre - reach + speed[centre - reach : centre + reach].argmax()
    slow = speed < SLOW * speed[fastest] + row_quantiles(speed[None], 0.2).item()
    width = round(QUIET * rate)
    quiet = np.convolve(slow, np.ones(width), "valid") > width - 0.5  # (P - width,) from here on for QUIET
    first = centre - round(0.18 * rate)
    last = min(centre + round(0.2 * rate), len(quiet) - 1)
    calm = np.flatnonzero(quiet[first : fastest - width + 1])
    onset = first + calm[-1] + width if len(calm) else first
    calm = np.flatnonzero(quiet[fastest : last + 1])
    end = fastest + calm[0] if len(calm) else last
    return onset, max(end, onset + 1)


def _qrs(beat, onset, end, rate, of_lead):
    qrs = beat[:, onset : end + 1]  # (12, n)
    sample = np.arange(qrs.shape[1])
    top = qrs.argmax(1)[:, None]  # (12, 1)
    r = np.maximum(qrs.max(1), 0)
    q = np.minimum(np.where(sample <= top, qrs, 0).min(1), 0)
    after = np.where(sample >= top, qrs, 0)
    s = np.minimum(after.min(1), 0)
    r2 = np.maximum(np.where(sample >= after.argmin(1)[:, None], qrs, 0).max(1), 0)
    area = qrs.sum(1) * 1000 / rate  # mV ms
    of_lead |= {
        "q": q,
        "r": r,
        "s": s,
        "r2": np.where(s < 0, r2, 0),
        "q_duration": ((qrs < -0.03) & (sample <= top)).sum(1) * 1000 / rate,
        "q_to_r": -q / (r + 0.05),
        "r_time": top[:, 0] * 1000 / rate,
        "qrs_area": area,
        "j": beat[:, end],
        "st": beat[:, min(end + round(0.06 * rate), beat.shape[1] - 1)],
    }
    height = qrs.max(1) - qrs.min(1)
    return {
        "qrs_duration": (end - onset) * 1000 / rate,
        "qrs_axis": _axis(area),
        "limb_height": height[:6].max(),
        "chest_height": height[6:].max(),
    }


def _axis(x):
    """Direction in the frontal plane, degrees, of something measured in each lead (12,)."""
    return np.degrees(np.arctan2((x[1] + x[2]) / np.sqrt(3), x[0]))


def _t_wave(beat, onset, end, rate, typical, of_lead):
    reach = 0.45 if np.isnan(typical) else min(0.45, 0.6 * typical)  # s, before the next P wave
    first = end + round(0.06 * rate)
    t = beat[:, first : end + round(reach * rate)]  # (12, n)
    if t.shape[1] < 5:
        return {}
    high = t.max(1)
    low = t.min(1)
    largest = np.where(high > -low, high, low)
    of_lead |= {"t": largest, "t_top": high, "t_bottom": low, "t_mean": t.mean(1)}
    of_lead["t_to_qrs"] = largest / (of_lead["r"] - of_lead["s"] + 0.1)
    size = np.sqrt((t**2).mean(0))  # (n,)
    peak = size.argmax()
    over = np.flatnonzero(size[peak:] < 0.3 * size[peak])
    qt = (first + peak + (over[0] if len(over) else len(size) - peak) - onset) / rate  # s
    usual = np.clip(typical, 0.3, 1.7)
    return {
        "t_axis": _axis(t.mean(1)),
        "t_peak": (first + peak - onset) * 1000 / rate,
        "qt": 1000 * qt,
        "qt_bazett": 1000 * qt / np.sqrt(usual),
        "qt_fridericia": 1000 * qt / np.cbrt(usual),
    }


def _p_wave(beat, onset, rate, of_lead):
    first = max(0, onset - round(0.3 * rate))
    gap = round(0.03 * rate)
    p = beat[:, first : onset - gap]  # (12, n)
    if p.shape[1] < 20:
        return {}
    begin = p[:, :5].mean(1, keepdims=True)
    p = p - begin - (p[:, -5:].mean(1, keepdims=True) - begin) * np.linspace(0, 1, p.shape[1])
    size = np.sqrt((p**2).mean(0))  # (n,)
    peak = size.argmax()
    small = np.flatnonzero(size[: peak + 1] < 0.3 * size[peak])
    begins = small[-1] if len(small) else 0
    of_lead["p"] = p[:, peak]
    return {
        "p_peak": (len(size) - peak + gap) * 1000 / rate,
        "pr": (len(size) - begins + gap) * 1000 / rate,
        "p_height": size[peak],
    }


def _constancy(beats, before, sample_freq):
    """How alike the beats (n, 12, P) are where P waves would be, 0.34 to 0.07 s before the R peak."""
    if len(beats) < 2:
        return {}
    part = beats[:, :, max(0, before - round(0.34 * sample_freq)) : before - round(0.07 * sample_freq)]
    part = part - part.mean(2, keepdims=True)
    mean = part.mean(0)  # (12, p)
    total = (part**2).sum() / len(part)
    return {"p_constancy": (mean**2).sum() / (total + 1e-6), "p_noise": np.sqrt(((part - mean) ** 2).mean())}
