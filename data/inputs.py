"""Numbers as models see them. Cache, training and inference share these, so a recording is the same everywhere."""

import math
import os

import numpy as np

from data.headers import MAX_MESSAGE, printable
from data.preprocess import Quality, preprocess
from data.records import RecordError, read_record
from data.rhythm import N_RHYTHM, rhythm

N_DEMOGRAPHICS = 4
N_CONTEXT = N_DEMOGRAPHICS + N_RHYTHM
SATURATED = 0.001  # share of saturated samples that is remarked upon; a plateau or two at a peak is common
CHUNK_BYTES = 2**26  # of signal files that are read at once: bounds the memory, whatever the recordings' length


def read_input(record, config):
    """(signal (12, T) int16 microvolts, its context (N_CONTEXT,), Header, warnings: list of printable str) of a
    Record. Raises RecordError, whose `stage` is 'reading' or 'preprocessing'.
    """
    warnings, quality = [], Quality()
    stage = "reading"
    try:
        adc, header = read_record(record, warnings)
        stage = "preprocessing"
        signal = to_microvolts(preprocess(adc, header, config, quality))
        n_values = adc.size
        del adc  # a day of it is a gigabyte
        facts = context(signal, config.sample_freq, header.age, header.sex)
    except RecordError as error:
        error.stage = stage
        raise
    except MemoryError:
        error = RecordError(f"{record.path}: does not fit into memory")
        error.stage = stage
        raise error from None
    if quality.n_nan:
        warnings.append(f"{quality.n_nan} invalid samples, interpolated")
    if quality.n_saturated > SATURATED * n_values:
        warnings.append(f"{quality.n_saturated} saturated samples")
    return signal, facts, header, [printable(text[:MAX_MESSAGE]) for text in warnings + quality.warnings]


def chunks(records, n, n_bytes=CHUNK_BYTES):
    """Yield the records in lists of at most n, and of signal files of at most n_bytes together (or a single one)."""
    chunk, total = [], 0
    for record in records:
        size = _signal_bytes(record)
        if chunk and (len(chunk) == n or total + size > n_bytes):
            yield chunk
            chunk, total = [], 0
        chunk.append(record)
        total += size
    if chunk:
        yield chunk


def _signal_bytes(record):
    for ending in (".mat", ".dat"):
        try:
            return os.stat(record.path + ending).st_size
        except OSError:
            continue  # of another name or missing: reading the recording will say so
    return 0


def to_microvolts(signal):
    """float mV -> int16 microvolts, rounded; beyond +-32.767 mV it is clipped. A microvolt is a fifth of the finest
    ADC step in use (5 uV at 200 adu/mV), and int16 halves the memory.
    """
    scaled = signal * 1000
    np.rint(scaled, out=scaled)
    return np.clip(scaled, -32767, 32767, out=scaled).astype(np.int16)


def to_millivolts(signal):
    """int16 microvolts -> float32 mV."""
    return signal.astype(np.float32) * np.float32(1e-3)


def context(signal, sample_freq, age, sex):
    """(N_CONTEXT,) float32, what a model is told of a whole recording beside its window: age and sex, and its rhythm.
    signal (12, T) int16 microvolts at sample_freq Hz; age in years or NaN, sex 'Male', 'Female' or anything else."""
    return np.concatenate([demographics(age, sex), rhythm(to_millivolts(signal), sample_freq)])


def demographics(age, sex):
    """(N_DEMOGRAPHICS,) float32: (age - 60) / 20 in years (0 if unknown), 1 if age is known, sex (1 male, -1 female,
    0 unknown), 1 if it is known.
    """
    known_age = not math.isnan(age)
    return np.array(
        [
            (age - 60) / 20 if known_age else 0,
            known_age,
            {"Male": 1, "Female": -1}.get(sex, 0),
            sex in ("Male", "Female"),
        ],
        np.float32,
    )
