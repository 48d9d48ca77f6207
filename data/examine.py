"""What is kept of a recording for data.inspect: facts of its header and, where wanted, of its samples."""

import hashlib
import multiprocessing
import signal
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import NamedTuple

from tqdm import tqdm

from data.headers import RecordError
from data.inputs import SATURATED
from data.labels import is_diagnosis
from data.leads import LEADS, lead_name
from data.preprocess import SignalConfig, preprocess_with_quality
from data.records import Record, read_record, record_header
from data.sources import sources_of

CHUNK = 500  # recordings a task
FEW = 2000  # recordings up to which starting processes costs more than it saves


class Facts(NamedTuple):
    """What is kept of a recording."""

    name: str  # 'source/record_id'
    source: str  # name of its collection, or its folder
    sample_freq: float
    seconds: float | None
    leads: str
    scale: str  # unit and gain
    age: float
    sex: str | None
    dx: tuple
    digest: bytes = b""  # of the samples
    warnings: tuple = ()  # kinds of quality faults


class Fault(NamedTuple):
    """A recording that cannot be read."""

    name: str
    source: str
    reason: str


def examined(records: list[Record], signals: bool, workers: int) -> list[Facts | Fault]:
    """Facts or Fault of every record, in order, read by several processes if there are many."""
    work = partial(examine_all, signals=signals)
    size = CHUNK // 10 if signals else CHUNK
    pairs = list(zip(records, sources_of(records)))
    tasks = [pairs[i : i + size] for i in range(0, len(pairs), size)]
    found = []
    with tqdm(total=len(records), desc="Reading", unit="rec", disable=None) as bar:
        if workers == 1 or len(records) <= (FEW // 10 if signals else FEW):
            for task in tasks:
                found += work(task)
                bar.update(len(task))
            return found
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
            for part in pool.map(work, tasks):
                found += part
                bar.update(len(part))
    return found


def examine_all(task: list[tuple[Record, str]], signals: bool) -> list[Facts | Fault]:
    """The same for a list of recordings with their sources, in another process."""
    return [examine(record, source, signals) for record, source in task]


def examine(record: Record, source: str, signals: bool) -> Facts | Fault:
    """Read a recording's header, and its samples if `signals`; `source` as `data.sources.sources_of` gives it."""
    try:
        if record.fault:
            raise RecordError(f"{record.path}: {record.fault}")
        if not signals:
            return facts_of(record, source, record_header(record))
        adc, header = read_record(record, check_sums=True)
        _, quality = preprocess_with_quality(adc, header, SignalConfig())
        digest = hashlib.blake2b(repr((adc.shape, adc.dtype.str)).encode() + adc.tobytes(), digest_size=16).digest()
        found = facts_of(record, source, header)
        return found._replace(digest=digest, warnings=tuple(kinds_of(quality, header.warnings, adc.size)))
    except RecordError as error:
        return Fault(record.name, source, str(error))
    except MemoryError:
        return Fault(record.name, source, f"{record.path}: does not fit into memory")


def facts_of(record, source, header):
    """Facts that a header gives."""
    scales = sorted({f"{lead.gain:g}/{lead.unit}" for lead in header.leads})
    return Facts(
        record.name,
        source,
        header.sample_freq,
        header.n_samples / header.sample_freq if header.n_samples else None,
        leads_text(header.lead_names) if header.leads else f"{header.n_segments} segments",
        ", ".join(scales[:3]) + (" ..." if len(scales) > 3 else ""),
        header.age,
        header.sex,
        tuple(filter(is_diagnosis, header.dx)),
    )


def leads_text(names):
    """'12 standard leads', or which of them there are, and how many others."""
    known = {lead_name(name) for name in names} - {None}
    others = len(names) - len(known)
    text = "12 standard leads" if len(known) == len(LEADS) else " ".join(name for name in LEADS if name in known)
    return (text or "none of the 12") + (f" and {others} others" if others else "")


def kinds_of(quality, warnings, n_values):
    """Names of the faults that preprocessing found, as rows of the table of quality."""
    if quality.flat:
        yield "flat leads"
    if quality.n_nan:
        yield "invalid samples (NaN or marked)"
    if quality.n_saturated > SATURATED * n_values:
        yield "saturated"
    if quality.missing:
        yield "missing leads"
    for text in quality.warnings:
        if "1000 times too" in text:
            yield "scale off by about 1000"
        elif "does not hold" in text:
            yield "Einthoven's law broken"
    if warnings:
        yield "stored first value or checksum differs"
