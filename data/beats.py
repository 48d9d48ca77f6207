"""The beats of a recording, described by few numbers: what a window does not show of a recording can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from data.leads import INDEPENDENT
from data.preprocess import to_millivolts
from data.rhythm import BAND, r_peaks

BEFORE = 0.3  # s of a beat before its R peak
AFTER = 0.5  # s after it
SHAPE_RATE = 100  # Hz, about: samples of faster recordings are averaged, so that shapes stay small
CLIP = 3.0  # mV
MIN_CORRELATION = 0.85  # with the recording's median beat; other beats are extrasystoles, or noise
N_COMPONENTS = 64
N_VARIED = 16  # components, the first, of which the variation from beat to beat is asked
FIT_ON = 10_000  # recordings whose beats are in memory as a whole, to fit components: 300 MB with 12 beats each
SMALLEST_SPREAD = 0.03  # added to a spread before its logarithm


@dataclass(frozen=True)
class Beats:
    """n beats of a recording, those that lie in it as a whole."""

    begins: np.ndarray  # (n,) first sample
    ends: np.ndarray  # (n,) sample after the last
    shapes: np.ndarray  # (n, F) float32 mV, leads one after another, each without its median; or (n, N_COMPONENTS)
    typical: np.ndarray  # (n,) bool, whether it resembles the median beat


def find_beats(signal: np.ndarray, sample_freq: float) -> Beats:
    """Beats of a recording: signal (12, T) mV, sample_freq in Hz. There are none where the rate is too low to see a QRS
    complex or the recording is shorter than a second.
    """
    step = max(1, round(sample_freq / SHAPE_RATE))
    before = round(BEFORE * sample_freq / step) * step
    after = round(AFTER * sample_freq / step) * step
    n_samples = signal.shape[1]
    peaks = np.zeros(0, int)
    if sample_freq > 2 * BAND[1] and n_samples >= sample_freq:
        peaks = r_peaks(signal, sample_freq)
        peaks = peaks[(peaks >= before) & (peaks + after <= n_samples)]
    leads = signal[list(INDEPENDENT)]
    leads = leads - np.median(leads, axis=1, keepdims=True)  # (8, T)
    n_points = (before + after) // step
    place = peaks[:, None] + np.arange(-before, after)  # (n, P * step)
    shapes = leads[:, place].reshape(len(leads), len(peaks), n_points, step).mean(3)  # (8, n, P)
    shapes = shapes.transpose(1, 0, 2).reshape(len(peaks), len(leads) * n_points)
    shapes = np.clip(shapes, -CLIP, CLIP)  # (n, F)
    usual = resemble_median(shapes)[0] if len(shapes) else np.zeros(0, bool)
    return Beats(peaks - before, peaks + after, shapes.astype(np.float32), usual)


def row_median(x: np.ndarray) -> np.ndarray:
    """(n, ...) -> (...), numpy's median over the first axis in half of its time, for few rows."""
    x = np.sort(x, axis=0)
    return (x[(len(x) - 1) // 2] + x[len(x) // 2]) / 2


def resemble_median(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shapes (n, F) of beats, n > 0 -> (n,) bool, which of them resemble the median beat, (n,) their correlation with
    it, and (F,) the median beat.
    """
    median = row_median(shapes)
    centred = shapes - shapes.mean(1, keepdims=True)
    shape = median - median.mean()
    norms = np.linalg.norm(centred, axis=1) * np.linalg.norm(shape)
    products = centred @ shape
    return products > MIN_CORRELATION * (norms + 1e-6), products / (norms + 1e-6), median


@dataclass(frozen=True)
class Components:
    """Principal components of mean beats: (n, F) shapes to (n, N_COMPONENTS) numbers."""

    mean: np.ndarray  # (F,) mV
    weights: np.ndarray  # (F, N_COMPONENTS)

    def __call__(self, shapes: np.ndarray) -> np.ndarray:
        """Shapes (n, F) mV -> (n, N_COMPONENTS) float32."""
        return ((shapes - self.mean) @ self.weights).astype(np.float32)

    @property
    def of_mean(self) -> np.ndarray:
        """(N_COMPONENTS,) what is subtracted: a beat of another amplification g has g * (c + of_mean) - of_mean."""
        return (self.mean @ self.weights).astype(np.float32)


def fit_components(shapes: np.ndarray) -> Components:
    """Principal components of (n, F) mean beats, each divided by the square root of its standard deviation s: between
    plain components, of which the first would be all that counts, and whitened ones, of which most are noise. Then all
    by one number, so that their mean square is 1. Where there are fewer than N_COMPONENTS, the others are zero.
    """
    weights = np.zeros((shapes.shape[1], N_COMPONENTS))
    if not len(shapes):
        return Components(np.zeros(shapes.shape[1]), weights)
    mean = shapes.mean(0, dtype=np.float64)
    _, spread, axes = np.linalg.svd(shapes - mean, full_matrices=False)
    spread = spread[:N_COMPONENTS] / np.sqrt(len(shapes))
    spread = spread[spread > 1e-6]  # mV; below lies rounding
    axes = axes[: len(spread)]
    largest = np.abs(axes).argmax(1)
    axes = axes * np.sign(axes[np.arange(len(axes)), largest])[:, None]  # else another machine may turn them round
    weights[:, : len(spread)] = axes.T / np.sqrt(spread)
    if len(spread):
        weights /= np.sqrt(spread.sum() / N_COMPONENTS)  # s / sqrt(s) squared is s
    return Components(mean, weights)


@dataclass(frozen=True)
class Unseen:
    """What b windows do not show of their recordings' beats; zero where it is not known."""

    beat: np.ndarray  # (b, N_COMPONENTS) float32, the mean of the typical ones
    has_beat: np.ndarray  # (b,) bool, at least one
    variation: np.ndarray  # (b, N_VARIED) float32, log standard deviation of the first components, standardised
    has_variation: np.ndarray  # (b,) bool, at least three beats, typical or not

    def __getitem__(self, windows: slice) -> Unseen:
        """The same of some of the windows."""
        return Unseen(**{name: part[windows] for name, part in vars(self).items()})


class UnseenBeats:
    """Answers what windows do not show of the beats of their recordings.

    Args:
        signals: {row: (12, T) int16 microvolts}.
        train: rows from which components and typical variation are learned.
        sample_freq: Hz.
        seq_length: samples of a window.
    """

    def __init__(self, signals: Mapping[int, np.ndarray], train: np.ndarray, sample_freq: float, seq_length: int):
        self.seq_length = seq_length
        fit_on = train if len(train) <= FIT_ON else train[np.linspace(0, len(train) - 1, FIT_ON).astype(int)]
        found = {row: find_beats(to_millivolts(signals[row]), sample_freq) for row in fit_on.tolist()}
        means = [beats.shapes[beats.typical].mean(0) for beats in found.values() if beats.typical.any()]
        n_numbers = next(iter(found.values())).shapes.shape[1]
        self.components = fit_components(np.array(means, np.float32).reshape(len(means), n_numbers))
        self.beats = {}  # {row: Beats in components}, a tenth of the memory
        for row, signal in signals.items():
            beats = found.pop(row) if row in found else find_beats(to_millivolts(signal), sample_freq)
            self.beats[row] = replace(beats, shapes=self.components(beats.shapes))
        logs = [_log_spread(beats.shapes) for beats in map(self.beats.get, train.tolist()) if len(beats.shapes) > 2]
        self.usual = np.mean(logs, axis=0) if logs else np.zeros(N_VARIED)
        spread = np.std(logs, axis=0) if logs else np.ones(N_VARIED)
        self.unusual = np.where(spread > 1e-3, spread, 1)

    def __call__(self, rows: np.ndarray, starts: np.ndarray) -> Unseen:
        """Of b windows that begin at `starts` (b,) in the recordings `rows` (b,)."""
        unseen = Unseen(
            beat=np.zeros((len(rows), N_COMPONENTS), np.float32),
            has_beat=np.zeros(len(rows), bool),
            variation=np.zeros((len(rows), N_VARIED), np.float32),
            has_variation=np.zeros(len(rows), bool),
        )
        for i, (row, start) in enumerate(zip(rows.tolist(), starts.tolist())):
            beats = self.beats[row]
            outside = (beats.ends <= start) | (beats.begins >= start + self.seq_length)
            typical = outside & beats.typical
            if typical.any():
                unseen.has_beat[i] = True
                unseen.beat[i] = beats.shapes[typical].mean(0)
            if outside.sum() > 2:
                unseen.has_variation[i] = True
                unseen.variation[i] = (_log_spread(beats.shapes[outside]) - self.usual) / self.unusual
        return unseen

    def forget(self, rows: np.ndarray) -> None:
        """Let go of the beats of recordings that nobody will ask about again."""
        for row in rows.tolist():
            del self.beats[row]


def _log_spread(numbers: np.ndarray) -> np.ndarray:
    """(n, N_COMPONENTS) of n beats -> (N_VARIED,)."""
    return np.log(numbers[:, :N_VARIED].std(0) + SMALLEST_SPREAD)
