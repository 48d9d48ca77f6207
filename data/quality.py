"""What is suspicious about a recording that can be read: counted and listed, never repaired silently."""

from dataclasses import dataclass, field
from statistics import fmean, median

import numpy as np

MIN_SATURATED_RUN = 5  # samples at a lead's extreme value, one after the other, that count as saturated
# Median over the leads of the standard deviation, mV: 0.06 to 0.8 in 2,376 real recordings, so that a factor of 1000
# stands out.
STD_RANGE = (0.002, 10.0)
# Sums that are zero by definition of the leads, and how far from it (root mean square) they may be: 0.05 mV and a
# fifth of
# the leads' own size, for devices filter and round every lead by itself.
_LAWS = {"I + III = II": {"I": 1, "III": 1, "II": -1}, "aVR + aVL + aVF = 0": {"aVR": 1, "aVL": 1, "aVF": 1}}
_LAW_TOLERANCE = (0.05, 0.2)


@dataclass
class Quality:
    """What was found and done in preprocessing one recording."""

    n_nan: int = 0  # stored samples (all leads) that were not finite or marked invalid, and were interpolated
    n_saturated: int = 0  # stored samples in stretches at the limit of a lead's range
    missing: list = field(default_factory=list)  # leads filled with zeros
    derived: list = field(default_factory=list)  # leads computed from others
    flat: list = field(default_factory=list)  # stored leads of a single value
    warnings: list = field(default_factory=list)  # texts


def inspect(leads, quality):
    """Fill `quality` (counts, flat, warnings) of the stored leads.

    leads yields (names, x, bad): x (k, n) float32 mV of k leads, bad (k, n) the mask of samples that were
    interpolated, or None. In parts, for a day of signal must fit into memory.
    """
    residuals = {law: 0.0 for law in _LAWS}
    std, power = [], {}
    for names, x, bad in leads:
        quality.n_nan += 0 if bad is None else int(np.count_nonzero(bad))
        low, high = x.min(axis=1), x.max(axis=1)
        quality.flat += [name for name, is_flat in zip(names, low == high) if is_flat]
        quality.n_saturated += _count_saturated(x, low, high, bad)
        square, mean = np.einsum("ij,ij->i", x, x) / x.shape[1], np.einsum("ij->i", x) / x.shape[1]
        power |= zip(names, square.tolist())
        std += np.sqrt(np.maximum(square - mean * mean, 0))[low < high].tolist()
        for law, terms in _LAWS.items():
            for name in terms.keys() & names:
                lead = x[names.index(name)]
                residuals[law] = residuals[law] + lead if terms[name] > 0 else residuals[law] - lead
    if quality.flat:
        quality.warnings.append(f"flat: {', '.join(quality.flat)}")
    typical = median(std) if std else STD_RANGE[0]
    if not STD_RANGE[0] <= typical <= STD_RANGE[1]:
        size = "small" if typical < STD_RANGE[0] else "large"
        quality.warnings.append(
            f"amplitudes are about 1000 times too {size} for an ECG (standard deviation "
            f"{typical:.2g} mV): is the gain or unit wrong?"
        )
    for law, terms in _LAWS.items():
        if terms.keys() <= power.keys():
            off = float(np.einsum("i,i->", residuals[law], residuals[law]) / len(residuals[law])) ** 0.5
            size = fmean(power[name] for name in terms) ** 0.5
            if off > _LAW_TOLERANCE[0] + _LAW_TOLERANCE[1] * size:
                quality.warnings.append(f"{law} does not hold (off by {off:.2g} mV): are leads swapped?")


def _count_saturated(x, low, high, bad):
    """Samples in runs of MIN_SATURATED_RUN or more at the smallest or the largest value of a lead, flat leads aside."""
    count = 0
    for limits in (low, high):
        at_limit = x == limits[:, None]  # (k, n)
        if bad is not None:
            at_limit &= ~bad
        two = at_limit[:, 1:] & at_limit[:, :-1]
        four = two[:, 2:] & two[:, :-2]  # where four in a row begin: seldom anywhere
        for row in np.flatnonzero(four.any(axis=1) & (low < high)) if four.any() else ():
            index = np.flatnonzero(at_limit[row])
            runs = np.diff(np.flatnonzero(np.diff(index, prepend=-2, append=index[-1] + 2) > 1))
            count += int(runs[runs >= MIN_SATURATED_RUN].sum())
    return count
