"""Numbers as models see them. Cache, training and inference share these, so a recording is the same everywhere."""

import os
from collections.abc import Iterable, Iterator

import numpy as np

from data.covariates import recording_covariates
from data.header_files import SIGNAL_ENDINGS
from data.headers import MAX_MESSAGE, Header, printable
from data.preprocess import SignalConfig, preprocess_with_quality, to_microvolts
from data.quality import Quality
from data.records import Record, RecordError, read_record, record_files

USUAL_RATES = (50, 10_000)  # Hz; an ECG of another rate is more likely one whose header is wrong
SHORT = 1.0  # s, in which there may be no beat
SATURATED = 0.001  # share of saturated samples that is remarked upon; a plateau or two at a peak is common
CHUNK_BYTES = 2**26  # of signal files that are read at once: bounds the memory, whatever the recordings' length


def read_input(
    record: Record | str | os.PathLike, config: SignalConfig
) -> tuple[np.ndarray, np.ndarray, Header, list[str]]:
    """-> signal (n_leads, T) int16 microvolts, the leads of `config`, covariates (N_COVARIATES,) float32, Header,
    warnings: printable texts.

    Raises RecordError, whose `stage` is 'reading' or 'preprocessing'.
    """
    stage = "reading"
    try:
        adc, header = read_record(record, check_sums=True)
        stage = "preprocessing"
        signal, warnings = _model_signal(adc, header, config)
        del adc  # a day of it is a gigabyte
        covariates = recording_covariates(signal, config.sample_freq, header.age, header.sex)
    except RecordError as error:
        error.stage = stage
        raise
    except MemoryError:
        error = RecordError(f"{getattr(record, 'path', record)}: does not fit into memory")
        error.stage = stage
        raise error from None
    return signal, covariates, header, warnings


def model_input(adc: np.ndarray, header: Header, config: SignalConfig) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """What models see of a recording that is in memory already: what `read_input` gives of one in a file.

    Args:
        adc: (leads of the header, n) ADC values, or values in the units of the header.
        header: of the recording.
        config: what the model's input is.

    Returns:
        signal (n_leads, T) int16 microvolts, covariates (N_COVARIATES,) float32, warnings: printable texts.

    Raises:
        RecordError: the recording cannot be used.
    """
    signal, warnings = _model_signal(adc, header, config)
    return signal, recording_covariates(signal, config.sample_freq, header.age, header.sex), warnings


def _model_signal(adc, header, config):
    """-> signal (n_leads, T) int16 microvolts, warnings."""
    x, quality = preprocess_with_quality(adc, header, config)
    return to_microvolts(x), _warnings(header, quality)


def _warnings(header: Header, quality: Quality) -> list[str]:
    """What is suspicious about a readable recording, in printable texts."""
    texts = list(header.warnings)
    if not USUAL_RATES[0] <= header.sample_freq <= USUAL_RATES[1]:
        texts.append(f"sampling frequency of {header.sample_freq:g} Hz: is it right? The answer depends on it")
    if header.n_samples and header.n_samples < SHORT * header.sample_freq:
        texts.append(f"only {header.n_samples / header.sample_freq:.2g} s long: hardly a beat to answer from")
    if quality.n_nan:
        most = ", most of what there is" if 2 * quality.n_nan > quality.n_values else ""
        texts.append(f"{quality.n_nan} invalid samples, interpolated{most}")
    if quality.n_saturated > SATURATED * quality.n_values:
        texts.append(f"{quality.n_saturated} saturated samples")
    texts += quality.warnings
    return [printable(text[:MAX_MESSAGE]) for text in texts]


def chunks(records: Iterable[Record], n: int, n_bytes: int = CHUNK_BYTES) -> Iterator[list[Record]]:
    """Yield the records in lists of bounded size.

    Args:
        records: What to divide, in its order.
        n: Records of a list at most.
        n_bytes: Bytes of the signal files of a list at most; a record that has more is alone.
    """
    chunk = []
    total = 0
    for record in records:
        size = _signal_bytes(record)
        if chunk and (len(chunk) == n or total + size > n_bytes):
            yield chunk
            chunk = []
            total = 0
        chunk.append(record)
        total += size
    if chunk:
        yield chunk


def _signal_bytes(record):
    if record.format:
        return _size(record.header_path) if record.part is None else 0  # of many in a file, each is short
    for ending in SIGNAL_ENDINGS:
        size = _size(record.path + ending)
        if size:
            return size
    return sum(map(_size, record_files(record)[1:]))  # of other names, or several


def _size(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return 0  # reading the recording will say so
