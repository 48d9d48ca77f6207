"""ADC values and header -> float32 millivolts of fixed leads at a fixed rate; the one way into every model."""

import math
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from data.headers import INVALID_SAMPLE, MILLIVOLTS, Header, RecordError
from data.leads import LEADS, combine_leads, plan_leads
from data.quality import Quality, inspect
from data.resample import resample

__all__ = [
    "Quality",
    "SignalConfig",
    "preprocess",
    "preprocess_with_quality",
    "resample",
    "window_starts",
]

FREQ_RANGE = (1.0, 2e4)  # Hz, of a recording that can be preprocessed

# mV; 998 of 1,000 leads of AC-coupled recorders have their median within it. Beyond it stand recorders that let a
# constant voltage pass, and headers without the baseline of their samples.
OFFSET = 0.3
_ROUGHLY = 256  # samples of a lead that tell whether its median is far from zero

MISSING_LEADS = "missing, set to zero"  # how the warning on them begins
MAX_VALUES = 6 * 10**8  # leads x samples at the model's rate: 12 leads of a day at 500 Hz and some
_LONG = 2**20  # samples a lead; beyond it leads are processed one at a time, so that memory stays bounded


@dataclass(frozen=True)
class SignalConfig:
    """What a model's input is: rate in Hz, order of leads, and the limit in mV beyond which amplitudes are cut."""

    sample_freq: float = 100.0
    leads: tuple[str, ...] = LEADS
    clip: float = 10.0

    def __post_init__(self):
        if not FREQ_RANGE[0] <= self.sample_freq <= FREQ_RANGE[1]:
            raise ValueError(
                f"sample_freq {self.sample_freq!r} Hz is not within {FREQ_RANGE[0]:g} to {FREQ_RANGE[1]:g}"
            )
        if not 0 < self.clip < math.inf:
            raise ValueError(f"clip {self.clip!r} mV is not a positive number")
        if not self.leads or len(set(self.leads)) != len(self.leads) or not set(self.leads) <= set(LEADS):
            raise ValueError(f"leads {self.leads!r} are not distinct names out of {' '.join(LEADS)}")

    def to_dict(self) -> dict:
        """Plain values, fit for JSON."""
        return asdict(self) | {"leads": list(self.leads), "unit": "mV"}

    @classmethod
    def from_dict(cls, values: dict) -> "SignalConfig":
        """Inverse of `to_dict`. Raises ValueError on unknown or missing keys, another unit, or values out of range."""
        known = cls().to_dict()
        if not isinstance(values, dict) or set(values) != set(known):
            raise ValueError(
                f"signal config needs exactly the keys {sorted(known)}, got "
                f"{sorted(map(str, values)) if isinstance(values, dict) else values!r}"
            )
        if values["unit"] != "mV":
            raise ValueError(f"signal config in {values['unit']!r}, only 'mV' is known")
        for key in ("sample_freq", "clip"):
            if isinstance(values[key], bool) or not isinstance(values[key], int | float):
                raise ValueError(f"signal config: {key} {values[key]!r} is not a number")
        if not isinstance(values["leads"], list | tuple) or not all(isinstance(name, str) for name in values["leads"]):
            raise ValueError(f"signal config: leads {values['leads']!r} are not a list of names")
        return cls(float(values["sample_freq"]), tuple(values["leads"]), float(values["clip"]))


def preprocess(adc: np.ndarray, header: Header, config: SignalConfig) -> np.ndarray:
    """ADC values -> mV at the model's rate, in its order of leads.

    Leads are placed by name. A missing limb lead is computed from the first two limb leads there are, a missing chest
    lead is zero. NaN, infinite and WFDB's invalid samples are interpolated linearly; at the ends the nearest good one
    is held. From a lead whose median is beyond OFFSET it is subtracted. What then is beyond `config.clip` is cut.

    Args:
        adc: (leads of the header, n), any real dtype, as stored (int16, or float64 from the organisers' drivers).
        header: Names, gains and rate of the leads.
        config: What the model's input is.

    Returns:
        x (n_leads, T) float32, contiguous: mV in the order of `config.leads`, T = ceil(n * config.sample_freq / rate).

    Raises:
        RecordError: Shape, lead names, units or rate are not usable, not one of the leads is there, or there is no
            signal: every lead is flat.
    """
    adc = _checked(adc, header, config)
    _, plan = _plan_of(header, config)
    used = sorted({row for terms in plan for row, _ in terms})
    if adc.shape[1] > _LONG:
        return _with_signal(_lead_by_lead(adc, header, config, plan), header)
    x, _, _ = _to_millivolts(adc, header, used)
    return _with_signal(_finish(combine_leads(x, used, plan), header, config), header)


def preprocess_with_quality(adc: np.ndarray, header: Header, config: SignalConfig) -> tuple[np.ndarray, Quality]:
    """-> x as `preprocess` gives it, and what was found and done in the leads that it comes from. Takes longer;
    arguments and errors as there.
    """
    adc = _checked(adc, header, config)
    rows, plan = _plan_of(header, config)
    stored = sorted({row for terms in plan for row, _ in terms})
    names = {row: name for name, row in rows.items()}
    if adc.shape[1] > _LONG:
        quality = inspect(([names[row]], *_to_millivolts(adc, header, [row])) for row in stored)
        x = _lead_by_lead(adc, header, config, plan)
    else:
        parts = _to_millivolts(adc, header, stored)
        quality = inspect([([names[row] for row in stored], *parts)])
        x = _finish(combine_leads(parts[0], stored, plan), header, config)
    quality.missing = [name for name, terms in zip(config.leads, plan) if not terms]
    quality.derived = [name for name, terms in zip(config.leads, plan) if terms and name not in rows]
    quality.warnings = _lead_warnings(header, rows, quality.missing) + quality.warnings
    return _with_signal(x, header), quality


def _with_signal(x, header):
    """x (n_leads, T) as it is; RecordError if it says nothing."""
    if all((lead == lead[0]).all() for lead in x):  # the first that moves answers for all
        raise RecordError(f"{header.record_name}: no signal: every lead that the model reads is flat")
    return x


def _lead_warnings(header, rows, missing):
    texts = []
    if len(rows) < len(header.leads):
        unused = [lead.name for row, lead in enumerate(header.leads) if row not in rows.values()]
        texts.append(f"not one of the 12 leads, unused: {', '.join(map(repr, unused))}")
    if missing:
        texts.append(f"{MISSING_LEADS}: {', '.join(missing)}")
    return texts


def _lead_by_lead(adc, header, config, plan):
    """The same as at once, in less memory: the model's leads are computed one after the other."""
    leads = []
    for terms in plan:
        used = sorted(row for row, _ in terms)
        x, _, _ = _to_millivolts(adc, header, used)
        leads.append(_finish(combine_leads(x, used, (terms,)), header, config))
    return np.concatenate(leads)


def _plan_of(header, config):
    try:
        return plan_leads(header.lead_names, config.leads)
    except ValueError as error:
        raise RecordError(f"{header.record_name}: {error}") from None


def _checked(adc, header, config):
    adc = np.asarray(adc)
    if adc.ndim != 2 or adc.dtype.kind not in "iuf":
        raise RecordError(f"{header.record_name}: signal is {adc.ndim}-dimensional {adc.dtype}, not leads x samples")
    if adc.shape[0] != len(header.leads) or adc.shape[1] != (header.n_samples or adc.shape[1]):
        raise RecordError(
            f"{header.record_name}: signal is {adc.shape[0]} leads x {adc.shape[1]} samples, the header "
            f"announces {len(header.leads)} x {header.n_samples}"
        )
    if adc.size == 0:
        raise RecordError(f"{header.record_name}: signal is empty")
    if not FREQ_RANGE[0] <= header.sample_freq <= FREQ_RANGE[1]:
        raise RecordError(
            f"{header.record_name}: sampling frequency {header.sample_freq:g} Hz is not within "
            f"{FREQ_RANGE[0]:g} to {FREQ_RANGE[1]:g}"
        )
    n_resampled = math.ceil(adc.shape[1] * config.sample_freq / header.sample_freq)
    if len(config.leads) * n_resampled > MAX_VALUES:
        raise RecordError(
            f"{header.record_name}: {n_resampled} samples a lead at the model's rate of {config.sample_freq:g} "
            f"Hz are too many (limit: {MAX_VALUES} values)"
        )
    return adc


def _to_millivolts(adc, header, rows):
    """-> x (len(rows), n) float32: (adc - baseline) / gain in mV, bad samples interpolated, without offsets; the mask
    of bad samples, or None; (len(rows),) float32 mV, the offset of each lead that was subtracted, or 0.
    """
    if not rows:
        return np.zeros((0, adc.shape[1]), np.float32), None, np.zeros(0, np.float32)
    leads = [header.leads[row] for row in rows]
    try:
        scale, baseline, invalid, largest_invalid = _scaling(
            tuple((lead.gain, lead.unit, lead.baseline, lead.fmt) for lead in leads)
        )
    except KeyError:
        units = ", ".join(f"lead {lead.name} in {lead.unit!r}" for lead in leads if lead.unit.lower() not in MILLIVOLTS)
        raise RecordError(f"{header.record_name}: {units}, not in V, mV, uV or nV") from None
    part = adc if rows == list(range(len(adc))) else adc[rows]
    with np.errstate(over="ignore", invalid="ignore"):
        if baseline is not None:  # in float64, where the difference of any stored values is exact
            x = np.subtract(part, baseline, dtype=np.float64).astype(np.float32, order="C")
        else:
            x = part.astype(np.float32, order="C")
        x /= scale
    bad = _bad_samples(part, x, invalid, largest_invalid)
    if bad is not None:
        _interpolate(x, bad)
    return x, bad, _remove_offsets(x)


def _remove_offsets(x):
    """Subtract the median from each lead of x (k, n) where it is beyond OFFSET -> (k,) what was subtracted."""
    order = np.sort(x[:, :: 1 + x.shape[1] // _ROUGHLY], axis=1)  # of all samples it would take as long as the filter
    offsets = np.zeros(len(x), np.float32)
    for row in np.flatnonzero(np.abs(order[:, order.shape[1] // 2]) > OFFSET):
        offsets[row] = np.median(x[row])
        x[row] -= offsets[row]
    return offsets


@lru_cache(maxsize=256)
def _scaling(leads):
    """-> adu per mV (n, 1) float32, baseline (n, 1) float64 or None where all are 0, invalid sample (n, 1) float64
    (nan if the format has none), the largest of them (or -inf).
    """
    scale = [gain / MILLIVOLTS[unit.lower()] for gain, unit, _, _ in leads]
    baseline = np.array([baseline for _, _, baseline, _ in leads], float)[:, None]
    invalid = [INVALID_SAMPLE[fmt] for _, _, _, fmt in leads]
    return (
        np.array(scale, np.float32)[:, None],
        baseline if baseline.any() else None,
        np.array(invalid, float)[:, None],
        max((value for value in invalid if value is not None), default=-math.inf),
    )


def _bad_samples(adc, x, invalid, largest_invalid):
    """-> mask (n_leads, n) of samples that are not finite or are WFDB's invalid value, or None if there are none."""
    if adc.dtype.kind == "f":
        bad = ~np.isfinite(x) | (adc == invalid)
    elif adc.min() <= largest_invalid:
        bad = adc == invalid
    else:
        return None
    return bad if bad.any() else None


def _interpolate(x, bad):
    """Fills the bad samples of x (n_leads, n) in place; a lead without any good sample becomes zero."""
    index = np.arange(x.shape[1])
    for row, mask in zip(x, bad):
        if mask.all():
            row[:] = 0
        elif mask.any():
            row[mask] = np.interp(index[mask], index[~mask], row[~mask])


def _finish(x, header, config):
    """x (n_leads, n) mV at the stored rate -> (n_leads, T) at the rate of the config, within +-clip."""
    np.clip(x, -config.clip, config.clip, out=x)  # before the filter too: it spreads a spike over its neighbours
    out = resample(x, header.sample_freq, config.sample_freq)
    return x if out is x else np.clip(out, -config.clip, config.clip, out=out)


def window_starts(n: int, seq_length: int, overlap: int = 0) -> list[int]:
    """First samples of the windows over a recording: spread evenly over all of it, the first at its start, the last
    at its end.

    Args:
        n: Samples of the recording. One that is no longer than a window has one window.
        seq_length: Samples of a window.
        overlap: Samples that neighbours share at least.

    Returns:
        W = ceil((n - overlap) / (seq_length - overlap)) places.
    """
    if not 0 <= overlap < seq_length:
        raise ValueError(f"overlap {overlap} is not within 0 to seq_length - 1 = {seq_length - 1}")
    if n <= seq_length:
        return [0]
    n_windows = -(-(n - overlap) // (seq_length - overlap))
    return (np.arange(n_windows) * (n - seq_length) // (n_windows - 1)).tolist()


def to_microvolts(signal: np.ndarray) -> np.ndarray:
    """float mV -> int16 microvolts, rounded; beyond +-32.767 mV it is clipped. A microvolt is a fifth of the finest
    ADC step in use (5 uV at 200 adu/mV), and int16 halves the memory.
    """
    scaled = signal * 1000
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32767, 32767, out=scaled).astype(np.int16)


def to_millivolts(signal: np.ndarray) -> np.ndarray:
    """int16 microvolts -> float32 mV."""
    return signal.astype(np.float32) * np.float32(1e-3)
