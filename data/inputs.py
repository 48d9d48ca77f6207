"""Numbers as models see them. Cache, training and inference share these, so a recording is the same everywhere."""

import os

from data.covariates import recording_covariates
from data.headers import MAX_MESSAGE, printable
from data.preprocess import Quality, preprocess, to_microvolts
from data.records import RecordError, read_record

SATURATED = 0.001  # share of saturated samples that is remarked upon; a plateau or two at a peak is common
CHUNK_BYTES = 2**26  # of signal files that are read at once: bounds the memory, whatever the recordings' length


def read_input(record, config):
    """(signal (12, T) int16 microvolts, its covariates (N_COVARIATES,), Header, warnings: list of printable str) of a
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
        covariates = recording_covariates(signal, config.sample_freq, header.age, header.sex)
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
    return signal, covariates, header, [printable(text[:MAX_MESSAGE]) for text in warnings + quality.warnings]


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
