"""What is suspicious about a recording that can be read: counted and listed, never repaired silently."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

MIN_SATURATED_RUN = 5  # samples at a lead's extreme value, one after the other, that count as saturated
# Median over the leads of the standard deviation, mV: 0.06 to 0.8 in 2,376 real recordings, so that a factor of 1000
# stands out.
STD_RANGE = (0.002, 10.0)
# Sums that are zero by definition of the leads, and how far from it (standard deviation) they may be: 0.05 mV and a
# fifth of the leads' own size, for devices filter and round every lead by itself.
_LAWS = {"I + III = II": {"I": 1, "III": 1, "II": -1}, "aVR + aVL + aVF = 0": {"aVR": 1, "aVL": 1, "aVF": 1}}
_LAW_TOLERANCE = (0.05, 0.2)


@dataclass
class Quality:
    """What was found and done in preprocessing one recording."""

    n_nan: int = 0  # stored samples (all leads) that were not finite or marked invalid, and were interpolated
    n_saturated: int = 0  # stored samples in stretches at the limit of a lead's range
    n_values: int = 0  # stored samples, of all leads that were looked at
    missing: list[str] = field(default_factory=list)  # leads filled with zeros
    derived: list[str] = field(default_factory=list)  # leads computed from others
    flat: list[str] = field(default_factory=list)  # stored leads of a single value
    warnings: list[str] = field(default_factory=list)  # texts


def inspect(parts: Iterable[tuple[list[str], np.ndarray, np.ndarray | None, np.ndarray]]) -> Quality:
    """Counts, flat leads and warnings of the stored leads.

    `parts` yields (names, x, bad, offsets): x (k, n) float32 mV of k leads, bad (k, n) the mask of samples that were
    interpolated, or None, offsets (k,) mV that were subtracted. In parts, for a day of signal must fit into memory.
    """
    quality = Quality()
    far = {}  # offset of each lead that had one
    residuals = dict.fromkeys(_LAWS, 0.0)  # (n,) sums of leads that should be zero
    std = []  # of each lead that is not flat
    power = {}  # mean square of each lead
    for names, x, bad, offsets in parts:
        far |= {name: offset for name, offset in zip(names, offsets.tolist()) if offset}
        if bad is not None:
            quality.n_nan += int(np.count_nonzero(bad))
        low = x.min(axis=1)
        high = x.max(axis=1)
        quality.flat += [name for name, is_flat in zip(names, low == high) if is_flat]
        quality.n_saturated += _count_saturated(x, low, high, bad)
        quality.n_values += x.size
        square = np.einsum("ij,ij->i", x, x) / x.shape[1]
        mean = np.einsum("ij->i", x) / x.shape[1]
        power.update(zip(names, square.tolist()))
        std += np.sqrt(np.maximum(square - mean * mean, 0))[low < high].tolist()
        for law, terms in _LAWS.items():
            for name in terms.keys() & names:
                lead = x[names.index(name)]
                residuals[law] = residuals[law] + lead if terms[name] > 0 else residuals[law] - lead
    if quality.flat:
        quality.warnings.append(f"flat: {', '.join(quality.flat)}")
    quality.warnings += _check_size(std) + _check_laws(residuals, power) + _offset_text(far)
    return quality


def _offset_text(far):
    """Text on leads that were far from zero."""
    if not far:
        return []
    largest = max(far.values(), key=abs)
    return [f"not around zero, by {largest:.3g} mV at most, which was subtracted: {', '.join(far)}"]


def _check_size(std):
    """Text on amplitudes that no ECG has."""
    typical = median(std) if std else STD_RANGE[0]
    if STD_RANGE[0] <= typical <= STD_RANGE[1]:
        return []
    size = "small" if typical < STD_RANGE[0] else "large"
    return [
        f"amplitudes are about 1000 times too {size} for an ECG (standard deviation {typical:.2g} mV): is the gain "
        "or unit wrong?"
    ]


def _check_laws(residuals, power):
    """Texts on sums of leads that should be zero and are not."""
    texts = []
    for law, terms in _LAWS.items():
        if not terms.keys() <= power.keys():
            continue
        off = float(residuals[law].std())  # around its mean: a lead may have lost an offset that others keep
        size = fmean(power[name] for name in terms) ** 0.5
        if off > _LAW_TOLERANCE[0] + _LAW_TOLERANCE[1] * size:
            texts.append(f"{law} does not hold (off by {off:.2g} mV): are leads swapped?")
    return texts


def _count_saturated(x, low, high, bad):
    """Samples in runs of MIN_SATURATED_RUN or more at the smallest or the largest value of a lead, flat leads aside."""
    count = 0
    for limits in (low, high):
        at_limit = x == limits[:, None]  # (k, n)
        if bad is not None:
            at_limit &= ~bad
        two = at_limit[:, 1:] & at_limit[:, :-1]
        four = two[:, 2:] & two[:, :-2]  # where four in a row begin: seldom anywhere
        if not four.any():
            continue
        for row in np.flatnonzero(four.any(axis=1) & (low < high)):
            index = np.flatnonzero(at_limit[row])
            runs = np.diff(np.flatnonzero(np.diff(index, prepend=-2, append=index[-1] + 2) > 1))
            count += int(runs[runs >= MIN_SATURATED_RUN].sum())
    return count
