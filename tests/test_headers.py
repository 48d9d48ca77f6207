"""Headers: the grammar, and a catalogue of those that must be refused."""

import math
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.records import (
    Lead,
    RecordError,
    parse_header,
    read_header,
)

LINES = [
    "A 2 500 1000",
    "A.mat 16+24 1000/mV 16 0 5 -7 0 I",
    "A.mat 16+24 1000/mV 16 0 6 8 0 II",
    "#Age: 56",
    "#Sex: Female",
    "#Dx: 426783006,59118001",
]


def header_of(record_line="A 1 500 1000", signal="A.dat 16 1000/mV 16 0 5 -7 0 I", *comments):
    return parse_header([record_line, signal, *comments])


def test_fields_of_a_header():
    header = parse_header(line + "\r\n" for line in LINES)
    assert header == parse_header(["\ufeff" + LINES[0], "", *LINES[1:]])
    assert (header.record_name, header.n_segments, header.n_leads, header.sample_freq, header.n_samples) == (
        "A",
        1,
        2,
        500,
        1000,
    )
    assert header.leads[0] == Lead("A.mat", "16", 1, 0, 24, 1000.0, 0, "mV", 16, 0, 5, -7, 0, "I")
    assert header.lead_names == ("I", "II")
    assert (header.age, header.sex, header.dx) == (56, "Female", ("426783006", "59118001"))
    assert header.comments == ("Age: 56", "Sex: Female", "Dx: 426783006,59118001")


@pytest.mark.parametrize(
    "line, freq, n_samples",
    [
        ("A 1 360", 360, None),
        ("A 1 360.5 7", 360.5, 7),
        ("A 1 5e2 0", 500, None),
        ("A 1 500/1000 7", 500, 7),
        ("A 1 500/1000.5(-3.5) 7", 500, 7),
        ("A 1 500 7 12:30:01.25", 500, 7),
        ("A 1 500 7 12:30 01/02/2020", 500, 7),
        ("A 1 500 7 23-Mar-2021 20:20:47", 500, 7),
        ("A\t1  500 7 5", 500, 7),
        ("A 1 500 7 2006", 500, 7),
        ("A 1 500 7 2006-05-04", 500, 7),
        ("A 1 500 7 2006/05/04 12:00", 500, 7),
        ("A 1 500 7 2006-05-04T12:00:01.5", 500, 7),
        ("A 1 500 7 12:00:01 04.05.2006", 500, 7),
        ("A 1 500.0 7.0 12:00:01", 500, 7),
        ("A.mat 1 500 7", 500, 7),
        ("Äß 1 500 7", 500, 7),
    ],
)
def test_record_lines(line, freq, n_samples):
    header = header_of(line)
    assert (header.sample_freq, header.n_samples, header.warnings) == (freq, n_samples, ())


def test_an_absent_rate_is_remarked_upon():
    header = header_of("A 1")
    assert (header.sample_freq, header.n_samples) == (250, None)
    assert header.warnings == ("no sampling frequency in the header: 250 Hz by WFDB's rules",)
    assert parse_header(["A/1 1", "B 1000"]).warnings == ()  # its segments say it, or do not


@pytest.mark.parametrize("start", ["yesterday", "12:00 00/00", "12:00:00 01/02/2020 UTC", "#5", "-", "x" * 5000])
def test_odd_text_behind_the_length_is_remarked_upon(start):
    header = header_of(f"A 1 500 7 {start}")
    assert (header.sample_freq, header.n_samples) == (500, 7)
    (warning,) = header.warnings
    assert repr(start[:80]) in warning and "neither a time nor a date" in warning


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "A.dat 16",
            {
                "fmt": "16",
                "gain": 200,
                "baseline": 0,
                "unit": "mV",
                "initial_value": None,
                "checksum": None,
                "name": "",
            },
        ),
        ("A.dat 16 0 12 1024", {"gain": 200, "baseline": 1024, "adc_zero": 1024, "adc_resolution": 12}),
        ("A.dat 16 1000.0(0)/mV 16 7 1 2 0 V1", {"gain": 1000, "baseline": 0, "adc_zero": 7, "name": "V1"}),
        ("A.dat 16 200(-5) 16 7 1", {"baseline": -5, "unit": "mV", "initial_value": 1, "checksum": None}),
        ("A.dat 16 200 16 0 1 2 64", {"block_size": 64, "checksum": 2, "name": ""}),
        (
            "A.dat 16 1e-3(+5)/nV 16 0 1 2 0 lead II of 2",
            {"gain": 1e-3, "baseline": 5, "unit": "nV", "name": "lead II of 2"},
        ),
        (
            "A.dat 212x2:3+512 200 12 0 1 2 64 V",
            {"fmt": "212", "samples_per_frame": 2, "skew": 3, "byte_offset": 512, "block_size": 64},
        ),
        (
            "A.dat 16x1+24 1000.0(0)/µV 16 0 -34 -215 0 I",
            {"byte_offset": 24, "unit": "µV", "initial_value": -34, "checksum": -215},
        ),
        ("A.dat 16 1000/mV 16 0 -34 65321 0 aVR ", {"checksum": 65321, "name": "aVR"}),
    ],
)
def test_signal_lines(text, expected):
    lead = header_of(signal=text).leads[0]
    assert {key: getattr(lead, key) for key in expected} == expected


def test_comments():
    header = header_of("A 1", "A.dat 16", "# Age: 84", "# Sex: F", "#Dx: 1,2", "# dx : 2, 3,Unknown,", "#69 M 1085")
    assert (header.age, header.sex, header.dx) == (84, "Female", ("1", "2", "3"))
    for age in ("NaN", "", "Unknown", "300", "-1", "inf", "1_0", "9" * 30):
        assert math.isnan(header_of("A 1", "A.dat 16", f"#Age: {age}").age), age
    empty = header_of("A 1", "A.dat 16", "#Dx: Unknown", "#Sex: Unknown")
    assert (empty.dx, empty.sex) == ((), None) and math.isnan(empty.age)


@pytest.mark.parametrize(
    "lines, number, fault",
    [
        ([], 0, "no record line"),
        (["#Age: 5"], 1, "no record line"),
        (["A"], 1, "not 'name"),
        (["A x"], 1, "not 'name"),
        (["A 1 -500"], 1, "frequency"),
        (["A 1 0 10"], 1, "frequency"),
        (["A 1 1e9"], 1, "frequency"),
        (["A 1 nan"], 1, "not 'name"),
        (["A 1 500 -5"], 1, "not 'name"),
        (["A 1000000 500 5"], 1, "1000000 leads"),
        (["A 257"], 1, "257 leads"),
        (["A 1 500 1000000000000"], 1, "1000000000000 samples"),
        (["A 1 500 " + "9" * 6000], 1, "not 'name"),
        (["A/0 1 500"], 1, "0 segments"),
        (["a/b 1 500"], 1, "not 'name"),
        (LINES[:2], 2, "ends after 1 of the 2"),
        (LINES[:3] + ["A.mat 16"], 4, "beyond the 2"),
        (["A 1", "A.mat"], 2, "without format"),
        (["A 1", "A.mat 17"], 2, "format '17'"),
        (["A 1", "A.mat 16y"], 2, "format"),
        (["A 1", "A.mat 16x0"], 2, "samples per frame"),
        (["A 1", "A.mat 16 1000mV"], 2, "gain '1000mV'"),
        (["A 1", "A.mat 16 1e-200"], 2, "absurd"),
        (["A 1", "A.mat 16 1e99"], 2, "absurd"),
        (["A 1", "A.mat 16 1000 V1"], 2, "ADC resolution 'V1'"),
        (["A 1", "A.mat 16 1000 16 0 1_0 5 0 I"], 2, "initial value"),
        (["A 1", "A.mat 16 1000 16 0 5 x 0 I"], 2, "checksum"),
        (["A 1", "A.mat 16 1000 16 0 5 5 I"], 2, "block size"),
        (["A 1", "../A.mat 16"], 2, "plain name"),
        (["A 1", "/A.mat 16"], 2, "plain name"),
        (["A 1", "d\\A.mat 16"], 2, "plain name"),
        (["A 1", ".. 16"], 2, "plain name"),
        (["A 1", "http://h/A.mat 16"], 2, "plain name"),
        (["A 1", "C:A.mat 16"], 2, "plain name"),
        (["A 1", "- 16"], 2, "plain name"),
        (["A/2 1 500 30", "B 10", "../C 20"], 3, "segment line"),
        (["A/2 1 500 30", "B 10", "C 10"], 3, "segments hold 20"),
    ],
)
def test_faulty_headers(lines, number, fault):
    with pytest.raises(RecordError) as error:
        parse_header(lines, "folder/A.hea")
    assert str(error.value).startswith(f"folder/A.hea, line {number}: ") and fault in str(error.value)


@given(st.lists(st.text(st.sampled_from("A1.0 /+-x:(#\tmVé9e"), max_size=40), max_size=6))
@example(["A 1 1e400"])
@settings(max_examples=400, deadline=None)
def test_only_record_errors_escape(lines):
    try:
        header = parse_header(lines)
    except RecordError:
        return
    assert header.segments or len(header.leads) == header.n_leads <= 256
    assert all(isinstance(name, str) for name in header.lead_names)


def test_header_files(tmp_path):
    text = "\n".join(LINES) + "\n"
    for content in (
        b"\xef\xbb\xbf" + text.encode(),
        text.replace("\n", "\r\n").encode(),
        text.replace("\n", "\r").encode(),
        text.replace("1000/mV", "1000/µV").encode("latin-1"),
        text.replace("1000/mV", "1000/µV").encode(),
    ):
        (tmp_path / "A.hea").write_bytes(content)
        assert read_header(tmp_path / "A").dx == read_header(tmp_path / "A.hea").dx == ("426783006", "59118001")
        assert read_header(tmp_path / "A").leads[0].unit == ("µV" if "µ".encode("latin-1") in content else "mV")
    for content, fault in (
        (b"", "empty"),
        (b" \n\n", "empty"),
        (text.encode("utf-16"), "UTF-16"),
        (text.encode() + b"#" * 2**20, "exceeds"),
    ):
        (tmp_path / "A.hea").write_bytes(content)
        with pytest.raises(RecordError, match=rf"A\.hea: .*{fault}"):
            read_header(tmp_path / "A")
    (tmp_path / "A.hea").write_bytes(text.encode() + b"#" * 20_000)  # larger than what is read at first
    assert len(read_header(tmp_path / "A").comments[-1]) == 0
    with pytest.raises(RecordError, match=r"B\.hea: header is missing"):
        read_header(tmp_path / "B")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "P.hea")
        with pytest.raises(RecordError, match="not a regular file"):
            read_header(tmp_path / "P")
