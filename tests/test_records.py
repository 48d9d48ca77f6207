"""data/records.py against the wfdb package, and a catalogue of headers and files that must be refused."""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import wfdb
from conftest import LEADS, fake_ecg, write_record
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data.files import walk_files
from data.inputs import read_input
from data.preprocess import SignalConfig
from data.records import (
    Lead,
    RecordError,
    find_records,
    parse_header,
    read_header,
    read_record,
    record_files,
    recording_headers,
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


@pytest.fixture
def record(tmp_path):
    """A readable recording of 12 leads x 1000 samples; its path without extension."""
    write_record(tmp_path, "A", fake_ecg(np.random.default_rng(1), seconds=2))
    return tmp_path / "A"


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# Headers
# ----------------------------------------------------------------------------------------------------------------


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
        ("A 1", 250, None),
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


# Finding
# ----------------------------------------------------------------------------------------------------------------


def test_find_records(tmp_path):
    for name in ("b/A.hea", "a/A.hea", "a/deep/er/B.hea", "C.hea", ".hidden/D.hea", "a/.D.hea", "a/A.mat", "a/x.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "link").symlink_to(tmp_path / "b", target_is_directory=True)
    (tmp_path / "Z.hea").symlink_to("nowhere.hea")
    records = find_records(tmp_path)
    assert [record.name for record in records] == ["C", "Z", "a/A", "a/deep/er/B", "b/A", "link/A"]
    assert records[3].path == str(tmp_path / "a/deep/er/B") and records[3].source == "a/deep/er"
    with pytest.raises(RecordError, match="header is missing"):
        read_record(records[1])


def test_endings_in_capitals_are_headers(tmp_path):
    """One rule for all: the ending in any case; the signal file is the one that the header names."""
    write_record(tmp_path, "A", fake_ecg(np.random.default_rng(1), seconds=2))
    write_record(tmp_path, "B", fake_ecg(np.random.default_rng(2), seconds=2))
    write_record(tmp_path, "C", fake_ecg(np.random.default_rng(2), seconds=2))
    (tmp_path / "B.hea").rename(tmp_path / "B.HEA")
    (tmp_path / "C.hea").rename(tmp_path / "C.Hea")
    (tmp_path / "C.mat").rename(tmp_path / "C.MAT")
    rewrite(tmp_path / "C.Hea", "C.mat", "C.MAT")
    records = find_records(tmp_path)
    assert [(record.record_id, record.ending) for record in records] == [("A", ".hea"), ("B", ".HEA"), ("C", ".Hea")]
    _, b, c = (read_record(record)[0] for record in records)
    np.testing.assert_array_equal(b, c)
    np.testing.assert_array_equal(read_record(tmp_path / "B")[0], b)
    names = ["a.hea", "b.HEA", "c.heA", "d.hea.dvc", "e.mat", "hea", "f.hea~"]
    assert recording_headers(tmp_path, names) == ["a.hea", "b.HEA", "c.heA"]


def test_names_that_are_not_utf8_become_printable_and_are_read(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/no_\xe4_text")
    inner = os.path.join(folder, os.fsdecode(b"sub_\xff"))
    write_record(Path(inner), "r", fake_ecg(np.random.default_rng(1), seconds=2))
    os.rename(Path(inner, "r.hea"), Path(inner, os.fsdecode(b"r\xe9.hea")))
    content = np.random.default_rng(0).bytes(3000)
    Path(inner, "w.dat").write_bytes(content)
    Path(inner, "w.hea").write_text("w 1 500 2000\nw.dat 212 200 12 0 0 0 0 II\n")
    records = find_records(folder)
    assert [record.name for record in records] == ["sub_\\udcff/r\\udce9", "sub_\\udcff/w"]
    for record in records:
        signal, _, _, warnings = read_input(record, SignalConfig())
        assert signal.shape[0] == 12
        "\n".join([record.name, record.record_id, record.source, *warnings]).encode("utf-8")
        os.unlink(record_files(record)[1])
        with pytest.raises(RecordError, match="signal file is missing") as error:
            read_record(record)
        str(error.value).encode("utf-8")


def test_one_walk_finds_every_file(tmp_path):
    for name in ("x.txt", "a/y.csv", "a/.hidden", ".git/z", "a/b/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "file").symlink_to(tmp_path / "x.txt")
    (tmp_path / "a" / "broken").symlink_to("nowhere")
    found = {listing.inside: sorted(listing.names) for listing in walk_files(tmp_path)}
    assert found == {"": ["x.txt"], "a": ["broken", "file", "y.csv"], "a/b": ["c"]}
    assert {listing.path for listing in walk_files(tmp_path)} == {str(tmp_path / name) for name in ("", "a", "a/b")}


def test_folders_without_records(tmp_path):
    (tmp_path / "file").touch()
    for folder, fault in (
        (tmp_path / "none", "missing"),
        (tmp_path / "file", "not a folder"),
        (tmp_path, "no WFDB header"),
    ):
        with pytest.raises(RecordError) as error:
            find_records(folder)
        assert str(error.value).startswith(f"{folder}: ") and fault in str(error.value)


# Signals
# ----------------------------------------------------------------------------------------------------------------


def same_as_wfdb(path):
    """Reads a record both ways; -> adc, header, warnings."""
    adc, header = read_record(path, check_sums=True)
    expected = wfdb.rdrecord(str(path), physical=False)
    np.testing.assert_array_equal(adc, expected.d_signal.T)
    assert (header.lead_names, header.sample_freq, header.n_samples) == (
        tuple(expected.sig_name),
        expected.fs,
        expected.sig_len,
    )
    assert [lead.gain for lead in header.leads] == expected.adc_gain
    assert [lead.baseline for lead in header.leads] == expected.baseline
    assert [lead.unit for lead in header.leads] == expected.units
    return adc, header, list(header.warnings)


def test_sample_equals_wfdb(sample):
    if not sample.is_dir():
        pytest.skip("no sample recordings")
    for record in find_records(sample)[::4]:
        adc, header, warnings = same_as_wfdb(record.path)
        assert adc.dtype == np.int16 and warnings == []
        fields = wfdb.rdheader(record.path)
        assert [lead.checksum for lead in header.leads] == fields.checksum
        assert [lead.initial_value for lead in header.leads] == fields.init_value
        assert list(header.comments) == fields.comments


@pytest.mark.parametrize("fmt, dtype", [("61", ">i2"), ("160", "<u2"), ("212", None), ("310", None), ("311", None)])
def test_formats_wfdb_cannot_write(fmt, dtype, tmp_path):
    content = np.random.default_rng(6).bytes(7200)  # any bytes are samples in these
    (tmp_path / "W.dat").write_bytes(content)
    n = {"61": 1200, "160": 1200, "212": 1600, "310": 1800, "311": 1800}[fmt]
    (tmp_path / "W.hea").write_text(f"W 3 100 {n}\n" + "".join(f"W.dat {fmt} 200 16\n" for _ in range(3)))
    adc, header = read_record(tmp_path / "W")
    np.testing.assert_array_equal(adc, wfdb.rdrecord(str(tmp_path / "W"), physical=False).d_signal.T)
    if dtype:
        expected = np.frombuffer(content, dtype).reshape(n, 3).T.astype(int)
        np.testing.assert_array_equal(adc, expected - 32768 * (fmt == "160"))
    rewrite(tmp_path / "W.hea", f"100 {n}", f"100 {n + 9}")
    with pytest.raises(RecordError, match="truncated"):
        read_record(tmp_path / "W")


@pytest.mark.parametrize("fmt", ["16", "80", "24", "32", "508", "516", "524"])
def test_formats_equal_wfdb(fmt, tmp_path):
    limit = 100 if fmt in ("80", "508") else 500
    adc = np.random.default_rng(2).integers(-limit, limit, (601, 3))
    wfdb.wrsamp(
        "W",
        257,
        ["mV", "uV", "V"],
        ["V1", "II", "x y"],
        d_signal=adc,
        fmt=[fmt] * 3,
        adc_gain=[1000, 1.5, 2e5],
        baseline=[0, -12, 7],
        write_dir=str(tmp_path),
    )
    read, _, warnings = same_as_wfdb(tmp_path / "W")
    np.testing.assert_array_equal(read, adc.T)
    assert warnings == []


def test_dat_is_read_directly_and_may_leave_its_length_open(tmp_path, monkeypatch):
    adc = np.random.default_rng(3).integers(-32768, 32768, (1234, 2))
    wfdb.wrsamp(
        "W",
        360.5,
        ["mV"] * 2,
        ["I", "II"],
        d_signal=adc,
        fmt=["16"] * 2,
        adc_gain=[200.0] * 2,
        baseline=[0, 0],
        write_dir=str(tmp_path),
    )
    rewrite(tmp_path / "W.hea", " 1234", "")
    monkeypatch.setattr(wfdb, "rdrecord", None)
    read, header = read_record(tmp_path / "W")
    np.testing.assert_array_equal(read, adc.T)
    assert header.n_samples == 1234 and read_header(tmp_path / "W").n_samples is None and header.sample_freq == 360.5


def test_checksums_and_first_values(record):
    adc, header = read_record(record, check_sums=True)
    assert header.warnings == () and adc.shape == (12, 1000)
    total = int(adc[7].astype(int).sum())
    rewrite(record.with_suffix(".hea"), f" {header.leads[7].checksum} 0 V2", f" {header.leads[7].checksum + 1} 0 V2")
    rewrite(
        record.with_suffix(".hea"),
        f"16 0 {adc[0, 0]} {header.leads[0].checksum}",
        f"16 0 4444 {header.leads[0].checksum}",
    )
    warnings = read_record(record, check_sums=True)[1].warnings
    assert read_record(record)[1].warnings == ()
    assert len(warnings) == 2 and warnings[0] == f"lead I: first value 4444 stored, {adc[0, 0]} read"
    assert warnings[1].startswith("lead V2: checksum") and (int(warnings[1].split()[-2]) - total) % 65536 == 0


MAT_FAULTS = {
    "missing": (lambda path: path.unlink(), "missing"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "truncated"),
    "only head": (lambda path: path.write_bytes(path.read_bytes()[:24]), "truncated"),
    "half a head": (lambda path: path.write_bytes(path.read_bytes()[:9]), "truncated"),
    "too long": (lambda path: path.write_bytes(path.read_bytes() + b"\0\0"), "too long"),
    "wrong name": (lambda path: path.write_bytes(path.read_bytes().replace(b"val\0", b"lav\0", 1)), "'val'"),
    "float64": (lambda path: path.write_bytes(b"\0" + path.read_bytes()[1:]), "int16 matrix"),
    "transposed": (
        lambda path: path.write_bytes(np.array([30, 1000, 12, 0, 4], "<i4").tobytes() + path.read_bytes()[20:]),
        "1000 x 12",
    ),
    "v5": (lambda path: path.write_bytes(b"MATLAB 5.0 MAT-file" + bytes(200)), "version 5"),
    "v7.3": (lambda path: path.write_bytes(b"MATLAB 7.3 MAT-file" + bytes(200)), "version 7.3"),
    "HDF5": (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(200)), "version 7.3"),
    "folder": (lambda path: (path.unlink(), path.mkdir()), "not a regular file"),
}


@pytest.mark.parametrize("fault", MAT_FAULTS)
def test_faulty_mat_files(record, fault):
    spoil, message = MAT_FAULTS[fault]
    spoil(record.with_suffix(".mat"))
    with pytest.raises(RecordError) as error:
        read_record(record)
    assert str(error.value).startswith(f"{record}.mat: ") and message in str(error.value)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("A 12 500 1000", "A 12 500 2147483647", "'val' is 12 x 1000"),
        ("A 12 500 1000", "A 12 500 999", "'val' is 12 x 1000"),
        ("16+24", "16+0", "start at byte 24"),
        ("16+24", "212+24", "truncated|wfdb"),
        ("16+24", "16x1000", "truncated"),
        ("16+24", "16+999999999999999999", "start at byte 24"),
        ("A.mat 16+24", "B.mat 16+24", "B.mat: signal file is missing"),
    ],
)
def test_header_that_does_not_fit_its_file(record, old, new, message):
    rewrite(record.with_suffix(".hea"), old, new)
    if message == "truncated|wfdb":  # 12 bits a sample fit into the file: read, and the checksums tell
        assert len(read_record(record, check_sums=True)[1].warnings) >= 12
        return
    with pytest.raises(RecordError, match=message):
        read_record(record)


def test_no_memory_on_the_word_of_a_header(tmp_path):
    (tmp_path / "A.dat").write_bytes(bytes(100))
    for fmt in ("16", "212", "516", "8", "24x1000"):
        leads = "".join(f"A.dat {fmt} 200 16 0 0 0 0 {name}\n" for name in LEADS)
        (tmp_path / "A.hea").write_text(f"A 12 500 2000000000\n{leads}")
        with pytest.raises(RecordError, match="truncated|compressed format"):
            read_record(tmp_path / "A")
    (tmp_path / "A.hea").write_text("A 0 500 10\n")
    with pytest.raises(RecordError, match="no leads"):
        read_record(tmp_path / "A")


def test_wfdb_failures_are_record_errors(tmp_path):
    (tmp_path / "A.dat").write_bytes(bytes(100))  # not the FLAC stream that format 516 calls for
    (tmp_path / "A.hea").write_text("A 1 500 10\nA.dat 516 200 16 0 0 0 0 I\n")
    with pytest.raises(RecordError, match="wfdb cannot read"):
        read_record(tmp_path / "A")


# Several files, links
# ------------------------------------------------------------------------------------------------------------


def two_files(folder, name="X", record_name="X.mat"):
    """Limb and chest leads in a file each -> (12, 1000) int16."""
    signal = fake_ecg(np.random.default_rng(1), seconds=2)
    write_record(folder, "limb", signal[:6])
    write_record(folder, "chest", signal[6:])
    lines = [
        *(folder / "limb.hea").read_text().splitlines()[1:7],
        *(folder / "chest.hea").read_text().splitlines()[1:7],
    ]
    lines = [line.rpartition(" ")[0] + f" {lead}" for line, lead in zip(lines, LEADS)]
    for file in ("limb.hea", "chest.hea"):
        (folder / file).unlink()
    (folder / f"{name}.hea").write_text("\n".join([f"{record_name} 12 500 1000", *lines]))
    return signal


def test_a_record_named_like_a_file_with_two_signal_files_is_read(tmp_path):
    signal = two_files(tmp_path)
    adc, header = read_record(tmp_path / "X", check_sums=True)
    np.testing.assert_array_equal(adc, signal)
    assert adc.dtype == np.int16 and header.warnings == () and header.record_name == "X.mat"
    text = (tmp_path / "X.hea").read_text()
    order = [row for pair in zip(range(6), range(6, 12)) for row in pair]  # the leads of a file need not stand together
    lines = text.splitlines()
    (tmp_path / "X.hea").write_text("\n".join([lines[0], *(lines[row + 1] for row in order)]))
    adc, header = read_record(tmp_path / "X", check_sums=True)
    np.testing.assert_array_equal(adc, signal[order])
    assert header.lead_names == tuple(LEADS[row] for row in order) and header.warnings == ()
    (tmp_path / "X.hea").write_text(text.replace("chest.mat", "breast.mat"))
    with pytest.raises(RecordError, match="breast.mat: signal file is missing"):
        read_record(tmp_path / "X")


def test_files_of_unlike_length_are_refused_where_the_header_leaves_it_open(tmp_path):
    np.arange(100).astype("<i2").tofile(tmp_path / "a.dat")
    np.arange(99).astype("<i2").tofile(tmp_path / "b.dat")
    (tmp_path / "W.hea").write_text("W 2 500\na.dat 16 200 16 0 0 0 0 I\nb.dat 16 200 16 0 0 0 0 II\n")
    with pytest.raises(RecordError, match="unlike numbers of samples"):
        read_record(tmp_path / "W")


def stored(folder, original, place):
    """Moves a file into a store under a hash, and leaves a link to it at its place."""
    original, place = Path(original), Path(place)
    target = (
        folder / hashlib.sha256(original.read_bytes()).hexdigest()[:2] / hashlib.md5(original.name.encode()).hexdigest()
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    original.rename(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(os.path.relpath(target, place.parent))
    return target


@pytest.mark.parametrize("fmt", ["16+24", "212"])
def test_data_in_a_store_of_hashes_are_read_through_their_links(fmt, tmp_path):
    """DVC, git-annex, DataLad and Hugging Face caches: header and signal are links into different folders."""
    write_record(tmp_path / "made", "A", fake_ecg(np.random.default_rng(1), seconds=2))
    header = tmp_path / "made" / "A.hea"
    if fmt == "212":
        text = header.read_text().replace(" 1000\n", " 1300\n").replace("16+24", "212").replace("A.mat", "A.dat")
        header.write_text(text)
        (tmp_path / "made" / "A.mat").rename(tmp_path / "made" / "A.dat")
    expected = read_record(tmp_path / "made" / "A", check_sums=True)
    for name in os.listdir(tmp_path / "made"):
        stored(tmp_path / "store", tmp_path / "made" / name, tmp_path / "first" / name)
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).symlink_to(tmp_path / "first" / name)  # a chain
    (tmp_path / "linked").symlink_to(tmp_path / "in", target_is_directory=True)
    for folder in ("first", "in", "linked"):
        (record,) = find_records(tmp_path / folder)
        adc, found = read_record(record, check_sums=True)
        np.testing.assert_array_equal(adc, expected[0])
        assert found == expected[1]


def test_faults_behind_links_are_told_with_where_they_lead(record, tmp_path):
    target = stored(tmp_path / "store", record.with_suffix(".mat"), record.with_suffix(".mat"))
    content = target.read_bytes()
    target.write_bytes(content[:-2])
    with pytest.raises(RecordError, match=rf"A\.mat: truncated: .*A\.mat is a link to {target}\)$"):
        read_record(record)
    target.unlink()
    with pytest.raises(RecordError, match=rf"A\.mat: signal file is missing .*is a link to {target}\)$"):
        read_record(record)
    record.with_suffix(".mat").unlink()
    record.with_suffix(".mat").symlink_to("A.mat")
    with pytest.raises(RecordError, match="A.mat: cannot be read: Too many levels"):
        read_record(record)


@pytest.mark.parametrize(
    "pointer, command",
    [
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 24024\n", "git lfs pull"),
        ("/annex/objects/SHA256E-s24024--0.mat\n", "git annex get"),
    ],
)
@pytest.mark.parametrize("suffix", [".hea", ".mat"])
def test_what_stands_for_a_file_that_was_not_downloaded_is_told(suffix, pointer, command, record):
    record.with_suffix(suffix).write_text(pointer)
    with pytest.raises(RecordError, match=rf"A\{suffix}: .*not downloaded: run {command}"):
        read_record(record)
