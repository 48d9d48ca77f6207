"""Fast forms of two SciPy and NumPy functions that the search for R peaks needs for every recording.

Nothing here imports scipy.signal: that alone takes longer than a recording.
"""

from functools import lru_cache
from itertools import count

import numpy as np

FORGOTTEN = 1e-12  # what is left of the filter's response where it counts as over
EDGE = 15  # samples by which sosfiltfilt continues a signal beyond its ends
MAX_REACH = 1000  # samples; beyond it (620 Hz) the matrices of _ends would be too large
BLOCK = 2**16  # samples of a longer signal at a time, for memory's sake


@lru_cache(maxsize=16)
def _reach(band, sample_freq):
    """Samples within which the filter's response is over: its slowest pole decides."""
    low, high = _warped(band, sample_freq)
    poles = np.roots([1, (high - low) * np.exp(0.25j * np.pi), low * high])  # analogue; the others are their conjugates
    return int(np.log(FORGOTTEN) / np.log(np.abs((1 + poles) / (1 - poles)).max()))


def _warped(band, sample_freq):
    """Frequencies of the analogue filter that the bilinear transform maps to the band's limits."""
    return np.tan(np.pi * np.array(band) / sample_freq)


def _response(band, sample_freq, n):
    """Of a Butterworth band-pass, order 2, at the frequencies of an rfft of n samples, an even number; (n / 2 + 1,)."""
    low, high = _warped(band, sample_freq)
    w = np.tan(np.pi / n * np.arange(1, n // 2))
    w = (w - low * high / w) / (high - low)  # of the low-pass 1 / (s^2 + sqrt(2) s + 1) that it is made of
    return np.pad(1 / (1 - w**2 + np.sqrt(2) * 1j * w), 1)  # nothing passes at 0 and half the rate


def _fast_length(n):
    """The next even number that is a product of twos, threes and fives."""
    return next(m for m in count(n + n % 2, 2) if 30**30 % m == 0)


def _filtered(x, response):
    n = 2 * len(response) - 2
    return np.fft.irfft(np.fft.rfft(x, n, axis=1) * response, n, axis=1)[:, : x.shape[1]]


def _both_ways(x, band, sample_freq):
    """sosfiltfilt as it is defined: x continued as an odd function, then filtered forwards, as if its first value had
    been there for ever, and backwards, as if the last value of that would be.
    """
    reach = _reach(band, sample_freq)
    x = np.pad(x, ((0, 0), (EDGE, EDGE)), "reflect", reflect_type="odd")
    response = _response(band, sample_freq, _fast_length(x.shape[1] + reach))
    x = _filtered(np.pad(x, ((0, 0), (reach, 0)), "edge"), response)[:, reach:]
    x = _filtered(np.pad(x, ((0, 0), (0, reach)), "edge"), response.conj())[:, :-reach]
    return x[:, EDGE:-EDGE]


@lru_cache(maxsize=64)
def _power(band, sample_freq, n):
    """Response of the filter run both ways, at the frequencies of an rfft of n samples or somewhat more."""
    return np.abs(_response(band, sample_freq, _fast_length(n))) ** 2


@lru_cache(maxsize=16)
def _ends(band, sample_freq):
    """-> (K, K) each: what the first and the last K samples (the filter's reach) give each other beside the
    convolution, because sosfiltfilt continues a signal beyond its ends.
    """
    reach = _reach(band, sample_freq)
    ends = np.eye(4 * reach)[np.r_[:reach, -reach:0]]  # (2K, 4K) impulses near the ends
    beside = _both_ways(ends, band, sample_freq) - _filtered(ends, _power(band, sample_freq, 5 * reach))
    return beside[:reach, :reach], beside[reach:, -reach:]


def band_pass(signal: np.ndarray, band: tuple[float, float], sample_freq: float) -> np.ndarray:
    """What scipy's sosfiltfilt gives (to 1e-7), in less than half of its time; no sample is delayed.

    Args:
        signal: (12, T), of any real dtype; T is more than EDGE.
        band: Lowest and highest frequency that pass, Hz.
        sample_freq: Hz.

    Returns:
        (12, T) float64.
    """
    reach = _reach(band, sample_freq)
    n = signal.shape[1]
    if n > BLOCK + 2 * reach:
        return _by_blocks(signal, band, sample_freq, reach)
    signal = signal.astype(np.float64)
    if reach > MAX_REACH or n < 2 * reach:
        return _both_ways(signal, band, sample_freq)
    first, last = _ends(band, sample_freq)
    y = _filtered(signal, _power(band, sample_freq, n + reach))
    y[:, :reach] += signal[:, :reach] @ first
    y[:, -reach:] += signal[:, -reach:] @ last
    return y


def _by_blocks(signal, band, sample_freq, reach):
    """The same, block by block, each with as much of its neighbours as it can feel."""
    y = np.empty(signal.shape)
    for start in range(0, signal.shape[1], BLOCK):
        before = min(start, reach)
        part = band_pass(signal[:, start - before : start + BLOCK + reach], band, sample_freq)
        y[:, start : start + BLOCK] = part[:, before : before + BLOCK]
    return y


def row_quantiles(x: np.ndarray, q: float) -> np.ndarray:
    """(n, T) -> (n, 1), as numpy's for q < 1, in a fraction of its time."""
    place = q * (x.shape[1] - 1)
    low = int(place)
    share = place - low
    x = np.partition(x, low, axis=1)
    a = x[:, low : low + 1]
    b = x[:, low + 1 :].min(axis=1, keepdims=True)
    return a + (b - a) * share if share < 0.5 else b - (b - a) * (1 - share)
