"""WFDB headers: lines of text in, a `Header` out.

Follows the WFDB header format, header(5) of the WFDB Applications Guide. A line that does not match it is an error
with its number, never guessed at. Met in public 12-lead data and accepted beyond it: white space before a line, a
date before the time in the record line (Challenge 2020) or in another notation, and other text in their place, which
is remarked upon.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

from data.header_comments import NUMBER, parse_comments

# Limits, so that a hostile header allocates nothing. Far beyond any real 12-lead recording.
MAX_LEADS = 256
MAX_SEGMENTS = 65_536
MAX_SAMPLES = 2**31 - 1  # per lead: 49 days at 500 Hz
MAX_FRAME = 1000  # samples per frame
MAX_SKEW = 100_000  # frames
MAX_LINE = 2000  # characters of a signal line; header(5) allows 255
MAX_MESSAGE = 2000  # characters of an error
MAX_SHOWN = 80  # characters of a header's text in it
MAX_FREQ = 1e6  # Hz
GAIN_RANGE = (1e-9, 1e12)  # adu per unit, of either sign

DEFAULT_FREQ = 250.0  # Hz; header(5), where the field is absent
DEFAULT_GAIN = 200.0  # adu per mV; header(5), where the field is absent or 0

MILLIVOLTS = {"v": 1e3, "mv": 1.0, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "nv": 1e-6}  # micro sign and Greek mu

# The value that stands for "no sample here" in each storage format, signal(5). Format 8 (differences) has none.
INVALID_SAMPLE = {
    "16": -(2**15),
    "61": -(2**15),
    "160": -(2**15),
    "516": -(2**15),
    "24": -(2**23),
    "524": -(2**23),
    "32": -(2**31),
    "80": -(2**7),
    "508": -(2**7),
    "212": -(2**11),
    "310": -(2**9),
    "311": -(2**9),
    "8": None,
    "0": -(2**15),
}

_UNKNOWN_RECORD = "header"
_new_tuple = tuple.__new__  # makes a Lead in half the time of Lead(...), a tenth of the parsing
_BYTE_ORDER_MARKS = "\ufeff", "ï»¿"  # the second is the first one, read as latin-1
_TIME = r"\d{1,2}(?::\d{1,2}){0,2}(?:\.\d{1,9})?"
_DATE = r"(?:\d{1,2}(?:/\d{1,2}/|-[A-Za-z]{3}-|\.\d{1,2}\.)\d{2,4}|\d{4}(?:[-/.]\d{1,2}[-/.]\d{1,2})?)"

_RECORD_LINE = re.compile(
    rf"""
    (?P<name>[^\s/\\]+) (?:/(?P<n_segments>\d{{1,9}}))?
    [ \t]+ (?P<n_leads>\d{{1,9}})
    (?:[ \t]+ (?P<freq>{NUMBER}) (?:/{NUMBER} (?:\({NUMBER}\))?)?
        (?:[ \t]+ (?P<n_samples>\d{{1,18}}) (?:\.0{{1,18}})?
            (?:[ \t]+ (?P<start>\S.*))?
        )?
    )?""",
    re.VERBOSE | re.ASCII,
)
_START = re.compile(rf"(?:{_TIME}[ \t]+)?{_DATE}|{_DATE}[ \tT]+{_TIME}Z?|{_TIME}", re.ASCII)  # of a recording
_FORMAT = re.compile(
    r"(?P<fmt>\d{1,4}) (?:x(?P<samples_per_frame>\d{1,6}))? (?::(?P<skew>\d{1,9}))?"
    r"(?:\+(?P<byte_offset>\d{1,18}))?",
    re.VERBOSE | re.ASCII,
)
_GAIN = re.compile(
    rf"(?P<gain>{NUMBER}) (?:\((?P<baseline>[+-]?\d{{1,12}})\))? (?:/(?P<unit>\S+))?", re.VERBOSE | re.ASCII
)
_FULL_SIGNAL_LINE = re.compile(
    r"""
    ^(\S+) [ \t]+                               # file name
    (\S+ [ \t]+ \S+ [ \t]+ \S+ [ \t]+ \S+) [ \t]+  # format, gain, ADC resolution, ADC zero
    ([+-]?\d{1,12}) [ \t]+ ([+-]?\d{1,12}) [ \t]+    # first value, checksum
    (\d.*)$                                     # block size, name of the lead""",
    re.VERBOSE | re.ASCII | re.MULTILINE,
)
_INTEGER = re.compile(r"[+-]?\d{1,12}", re.ASCII)
_FILE_NAME = re.compile(r"[^\s/\\:-][^\s/\\:]*")
_SEGMENT_LINE = re.compile(r"(?P<name>\S+)[ \t]+(?P<n_samples>\d{1,18})", re.ASCII)


def printable(text: str) -> str:
    """The text with line ends, control characters and what stands for undecodable bytes written as escapes: names of
    files may hold any of them, but logs, tables and terminals must not.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


class RecordError(ValueError):
    """A recording that cannot be read. The message begins with the file or record name and states the fault."""

    stage = "reading"  # or 'preprocessing': where it happened

    def __init__(self, message: str):
        if len(message) > MAX_MESSAGE:  # the path of a file may be as long as this, and the fault stands behind it
            message = f"{message[: MAX_MESSAGE // 2]} ... {message[-MAX_MESSAGE // 2 :]}"
        super().__init__(printable(message))


class Lead(NamedTuple):
    """One signal line of a header. `gain` is in adu per `unit`, the rest of the amplitudes in adu."""

    file_name: str
    fmt: str  # storage format, as text: '16', '212', ...
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    unit: str
    adc_resolution: int
    adc_zero: int
    initial_value: int | None
    checksum: int | None
    block_size: int
    name: str


class Header(NamedTuple):
    """What a header says. A multi-segment one has `segments` (name, length) in place of `leads`."""

    record_name: str
    n_segments: int
    n_leads: int
    sample_freq: float  # Hz
    n_samples: int | None  # per lead; None where the header leaves it open
    leads: tuple[Lead, ...]
    age: float  # years, nan if unknown
    sex: str | None  # 'Male', 'Female' or None
    dx: tuple[str, ...]  # codes as written, in order, without doubles and 'Unknown'
    comments: tuple[str, ...]
    segments: tuple[tuple[str, int], ...] = ()
    warnings: tuple[str, ...] = ()  # what is odd about the header, and about the samples once they are read

    @property
    def lead_names(self) -> tuple[str, ...]:
        """tuple of str, in the order of the rows of the signal."""
        return tuple(lead.name for lead in self.leads)


def parse_header(lines: Iterable[str], name: str = _UNKNOWN_RECORD) -> Header:
    """Parse the lines of a header (any iterable of str, line ends or not) into a `Header`.

    `name` is what messages call it. Raises RecordError with the line number where the text is no WFDB header.
    """
    lines = list(lines)
    record = None
    body = []
    comments = []
    number = 0
    try:
        while number < len(lines):
            line = lines[number].strip()
            number += 1
            if number == 1:
                line = without_byte_order_mark(line)
            if not line:
                continue
            if line[0] == "#":
                comments.append(line.strip("# \t"))
            elif record is None:
                record = _parse_record_line(line)
                if not record.segmented:
                    body = _full_signal_lines(lines[number : number + record.n_lines])
                    number += len(body)
            elif len(body) == record.n_lines:
                raise ValueError(f"a line beyond the {record.n_lines} that the record line announces")
            else:
                body.append(_parse_segment_line(line) if record.segmented else _parse_signal_line(line))
        if record is None:
            raise ValueError("no record line")
        if len(body) < record.n_lines:
            raise ValueError(f"ends after {len(body)} of the {record.n_lines} signal or segment lines announced")
        return _build(record, body, comments)
    except ValueError as error:
        raise RecordError(f"{name}, line {number}: {error}") from None


class _RecordLine(NamedTuple):
    name: str
    segmented: bool
    n_lines: int  # signal or segment lines that follow
    n_leads: int
    freq: float
    n_samples: int | None
    warnings: tuple[str, ...]


def _build(record, body, comments):
    age, sex, dx, warnings = parse_comments(comments)
    n_samples = record.n_samples
    if record.segmented:
        total = sum(n for _, n in body)
        if (n_samples or total) != total:
            raise ValueError(f"segments hold {total} samples, the record line says {n_samples}")
        n_samples = total or None
    return Header(
        record.name,
        record.n_lines if record.segmented else 1,
        record.n_leads,
        record.freq,
        n_samples,
        () if record.segmented else tuple(body),
        age,
        sex,
        dx,
        tuple(comments),
        tuple(body) if record.segmented else (),
        record.warnings + warnings,
    )


def _parse_record_line(line):
    match = _RECORD_LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"not 'name[/segments] leads [frequency [samples [time [date]]]]': {line[:MAX_SHOWN]!r}")
    name, n_segments, n_leads, freq, n_samples, start = match.groups()
    freq = DEFAULT_FREQ if freq is None else float(freq)
    if not 0 < freq <= MAX_FREQ:
        raise ValueError(f"sampling frequency {freq:g} Hz is not within 0 to {MAX_FREQ:g}")
    n_leads = _bounded(n_leads, MAX_LEADS, "leads")
    n_lines = n_leads if n_segments is None else _bounded(n_segments, MAX_SEGMENTS, "segments", least=1)
    n_samples = _bounded(n_samples or "0", MAX_SAMPLES, "samples") or None
    warnings = ()
    if match[4] is None and n_segments is None:
        warnings += (f"no sampling frequency in the header: {DEFAULT_FREQ:g} Hz by WFDB's rules",)
    if start is not None and _START.fullmatch(start) is None:
        warnings += (f"record line: {start[:MAX_SHOWN]!r} is neither a time nor a date, ignored",)
    return _RecordLine(name, n_segments is not None, n_lines, n_leads, freq, n_samples, warnings)


def without_byte_order_mark(line: str) -> str:
    """The first line of a header without the mark that some editors put before it."""
    for mark in _BYTE_ORDER_MARKS:
        line = line.removeprefix(mark)
    return line


def _bounded(text, limit, what, least=0):
    value = int(text)
    if not least <= value <= limit:
        raise ValueError(f"{value} {what}, not within {least} to {limit}")
    return value


def _parse_segment_line(line):
    match = _SEGMENT_LINE.fullmatch(line)
    if match is None or not (match["name"] == "~" or is_plain_name(match["name"])):
        raise ValueError(f"not a segment line 'name samples': {line[:MAX_SHOWN]!r}")
    return match["name"], _bounded(match["n_samples"], MAX_SAMPLES, "samples")


def _full_signal_lines(lines):
    """-> list of Leads of lines that have every field and nothing before it, as nearly all have: one search finds the
    fields of all. Empty if any line is otherwise, for `_parse_signal_line` to judge.
    """
    text = "\n".join(lines)
    found = _FULL_SIGNAL_LINE.findall(text) if len(text) <= MAX_LINE else ()
    if len(found) != len(lines):
        return []
    leads = []
    try:
        for file_name in {fields[0] for fields in found}:
            _check_file_name(file_name)
        for file_name, constant, initial, checksum, tail in found:
            before, after = _constant_fields(constant, tail)
            leads.append(_new_tuple(Lead, (file_name,) + before + (int(initial), int(checksum)) + after))
    except ValueError:
        return []
    return leads


def _parse_signal_line(line):
    if len(line) > MAX_LINE:
        raise ValueError(f"a signal line of {len(line)} characters, more than {MAX_LINE}")
    file_name, *words = line.split(None, 8)  # fields after the format may be absent, but only with all that follow them
    if not words:
        raise ValueError(f"a signal line without format: {line[:MAX_SHOWN]!r}")
    before, after = _constant_fields(" ".join(words[:4]), " ".join(words[6:]))
    initial = _integer(words[4] if len(words) > 4 else None, "initial value")
    checksum = _integer(words[5] if len(words) > 5 else None, "checksum")
    _check_file_name(file_name)
    return Lead(file_name, *before, initial, checksum, *after)


def is_plain_name(file_name: str) -> bool:
    """Whether a name that a header gives is one of a file within its folder."""
    return _FILE_NAME.fullmatch(file_name) is not None and file_name not in (".", "..")


@lru_cache(maxsize=64)
def _check_file_name(file_name):
    if not is_plain_name(file_name):
        raise ValueError(
            f"signal file name {file_name[:MAX_SHOWN]!r} is not a plain name within the folder of the header"
        )


def _integer(text, what):
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"{what} {text[:40]!r} is not an integer")
    return int(text)


@lru_cache(maxsize=4096)
def _constant_fields(constant, tail):
    """Fields of a Lead before and after its initial value and checksum, from format, gain, ADC resolution and zero
    (`constant`), block size and name (`tail`). They repeat throughout a data set, so that they are parsed once."""
    fmt, gain, resolution, zero = (constant.split() + [None] * 3)[:4]
    block_size, lead_name = (tail.strip().split(None, 1) + [None] * 2)[:2]
    match = _FORMAT.fullmatch(fmt)
    if match is None or match["fmt"] not in INVALID_SAMPLE:
        raise ValueError(f"format {fmt[:40]!r} is none of WFDB")
    skew = _bounded(match["skew"] or "0", MAX_SKEW, "frames of skew")
    storage = (
        match["fmt"],
        _bounded(match["samples_per_frame"] or "1", MAX_FRAME, "samples per frame", least=1),
        skew,
        int(match["byte_offset"] or 0),
    )
    match = _GAIN.fullmatch("0" if gain is None else gain)
    if match is None:
        raise ValueError(f"gain {gain[:40]!r} is not 'number[(baseline)][/unit]'")
    gain = float(match["gain"]) or DEFAULT_GAIN
    if not GAIN_RANGE[0] <= abs(gain) <= GAIN_RANGE[1]:
        raise ValueError(f"gain {gain:g} is absurd (limits {GAIN_RANGE[0]:g} to {GAIN_RANGE[1]:g})")
    adc_zero = _integer(zero, "ADC zero") or 0
    baseline = int(match["baseline"]) if match["baseline"] else adc_zero
    scale = (gain, baseline, match["unit"] or "mV", _integer(resolution, "ADC resolution") or 0, adc_zero)
    return storage + scale, (_integer(block_size, "block size") or 0, lead_name or "")
