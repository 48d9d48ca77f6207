"""Recordings and outputs that are wrong on purpose: only the documented exceptions come out, quickly, and nothing large
is allocated.
"""

import os
import random
import resource
import socket
import string

import numpy as np
import pytest
from conftest import LEADS
from fuzz import TARGETS, fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.records import RecordError, parse_header, read_header, read_record
from engine.score_files import find_pairs, read_outputs

pytestmark = pytest.mark.usefixtures("bounded_memory")
briefly = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_of_the_fuzzer(target, tmp_path):
    outcomes, failures = fuzz(target, tmp_path / "files", random.Random(0), lambda n: n >= 150)
    assert not failures, failures[0][1]
    assert outcomes.total() == 150 and len(outcomes) > 1  # some read, some refused: it is no test of one kind


@pytest.mark.slow
def test_a_short_run_of_the_coverage_guided_fuzzer(tmp_path, run_script):
    pytest.importorskip("atheris", reason="it is not built for every platform: pip install atheris")
    resource.setrlimit(
        resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.getrlimit(resource.RLIMIT_AS)[1])
    )  # it bounds memory itself
    done = run_script("tests/robustness/fuzz_coverage.py", "--seconds", 8, cwd=tmp_path)
    assert done.stdout.count("no failure") == 4, done.stdout


HEADER = "\n".join(
    [
        "x 12 500 1000 12:00:00 01/02/2020",
        *(f"x.mat 16+24 1000(0)/mV 16 0 -5 123 0 {lead}" for lead in LEADS),
        "#Age: 50",
        "#Sex: Male",
        "#Dx: 426783006,164889003",
    ]
)


@briefly
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(HEADER)),
            st.integers(0, 20),
            st.text(max_size=12) | st.text("0123456789./()+-x: #~\n", max_size=20),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_mutated_headers_raise_record_errors_only(changes):
    text = HEADER
    for place, length, new in changes:
        text = text[:place] + new + text[place + length :]
    try:
        header = parse_header(text.split("\n"), "x.hea")
    except RecordError as error:
        assert str(error).startswith("x.hea, line ") and str(error).isprintable()
        return
    assert len(header.leads) == header.n_leads <= 256 and 0 < header.sample_freq <= 1e6
    assert all("/" not in lead.file_name and lead.file_name not in (".", "..") for lead in header.leads)


@pytest.mark.parametrize(
    "line",
    [
        "x " * 500_000,
        "x" * 10**6,
        "x 12 " + "9" * 10**6,
        "x 12 500 1000" + " " * 10**6 + "y",
        "x\t" + "\t" * 10**6,
        "x 12 1" + "0" * 10**6,
        "x 1 500 9\nx.mat " + "1(" * 10**6,
        "x 1 500 9\nx.mat 16 " + "1" * 10**6 + " 1 1 1 1",
    ],
)
def test_long_lines_are_refused(line):
    """A pattern that goes back and forth over them would not end within hours."""
    with pytest.raises(RecordError) as caught:
        parse_header(line.split("\n"))
    assert len(str(caught.value)) < 5000


@briefly
@given(
    data=st.binary(max_size=400),
    n_leads=st.integers(1, 12),
    n_samples=st.integers(0, 40),
    offset=st.sampled_from(("", "+24", "+7")),
    ending=st.sampled_from(("mat", "dat")),
    announced=st.booleans(),
)
def test_random_bytes_as_16_bit_signals(data, n_leads, n_samples, offset, ending, announced, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp()
    if announced:  # what a file should hold, so that the samples are reached
        data = np.array([30, n_leads, n_samples, 0, 4], "<i4").tobytes() + b"val\0" + data[: 2 * n_leads * n_samples]
    (folder / f"r.{ending}").write_bytes(data)
    lines = [f"r {n_leads} 500 {n_samples}"] + [
        f"r.{ending} 16{offset} 200/mV 16 0 0 0 0 {lead}" for lead in LEADS[:n_leads]
    ]
    (folder / "r.hea").write_text("\n".join(lines))
    try:
        adc, header = read_record(folder / "r", check_sums=True)
    except RecordError as error:
        assert "r." in str(error)
        return
    start = int(offset or 0)
    assert adc.shape == (n_leads, header.n_samples) and adc.dtype == np.int16
    assert adc.T.astype("<i2").tobytes() == data[start:]  # every byte of the file is a sample, and nothing else is


@briefly
@given(lines=st.lists(st.text("01,.eTrue#\n\r nan-_٣" + string.ascii_lowercase[:3], max_size=40), max_size=5))
def test_random_output_files_are_scored_or_reported(lines, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "outputs"
    folder.mkdir(exist_ok=True)
    (folder / "a.hea").write_text("a 1 1 1\n#Dx: 1\n")
    (folder / "a.csv").write_bytes("\n".join(["#a", "1,0", *lines]).encode())
    (folder / "b.hea").write_text("b 1 1 1\n#Dx: 1\n")
    (folder / "b.csv").write_bytes(b"#b\n1,0\n1,0\n0.25,0.75\n")
    outputs = read_outputs(find_pairs(folder, folder).outputs, [("1",), ("0",)])
    y_pred, y_score, malformed = outputs.y_pred, outputs.y_score, outputs.malformed
    assert y_pred.shape == y_score.shape == (2, 2) and not np.isnan(y_score).any()
    assert y_pred[1].tolist() == [True, False] and y_score[1].tolist() == [0.25, 0.75]  # whatever its neighbour holds
    assert not malformed or not (y_pred[0].any() or y_score[0].any())


def put_socket(file):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(file))


LINE = b" 212 200 12 0 0 0 0 I\n"


@pytest.fixture
def two_files(tmp_path):
    """A folder with the file x.dat, which a header names, and another one."""
    (tmp_path / "y.dat").write_bytes(bytes([5]) * 1500)
    (tmp_path / "x.dat").write_bytes(bytes([9]) * 1500)
    return tmp_path


@pytest.mark.parametrize("mark", [b"\x0b", b"\x0c", b"\x1c", b"\x1d", b"\x1e", "\u2028".encode()])
def test_no_signal_line_hides_in_a_comment(mark, two_files):
    """wfdb breaks the lines of a header at these characters, and would read the file of the hidden line."""
    (two_files / "x.hea").write_bytes(b"x 1 500 1000\n#c" + mark + b"y.dat" + LINE + b"x.dat" + LINE)
    assert set(read_record(two_files / "x")[0][0]) == {-1783, 9}  # 12 bits each: 0x909 and 0x009


def test_no_other_file_is_opened_where_a_name_is_not_ascii(two_files):
    """wfdb drops the accented letter of a header, and what is left is the name of the other file."""
    os.rename(two_files / "x.dat", two_files / "éy.dat")
    (two_files / "x.hea").write_bytes("x 1 500 1000\néy.dat".encode() + LINE)
    assert set(read_record(two_files / "x")[0][0]) == {-1783, 9}


@pytest.mark.parametrize(
    "name, put",
    [
        ("x.hea", os.mkfifo),
        ("x.hea", os.mkdir),
        ("x.hea", lambda file: os.symlink("/dev/zero", file)),
        ("x.hea", lambda file: os.symlink("/dev/null", file)),
        ("x.hea", put_socket),
        ("x.mat", os.mkfifo),
        ("x.mat", os.mkdir),
        ("x.mat", put_socket),
        ("x.mat", lambda file: os.symlink("/dev/zero", file)),
        ("x.mat", lambda file: os.symlink("..", file)),
    ],
)
def test_what_is_no_file_of_a_recording_is_neither_waited_for_nor_read(name, put, tmp_path):
    (tmp_path / "x.hea").write_text(HEADER)
    (tmp_path / name).unlink(missing_ok=True)
    put(tmp_path / name)
    with pytest.raises(RecordError, match=f"{name}: .*is not a regular file"):
        read_record(tmp_path / "x")


def test_a_fault_behind_a_link_is_told_with_where_it_leads(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "0123abcd").write_text("x 12 500 1000\nx.mat 16 1000/mV 16 zero\n")
    (tmp_path / "x.hea").symlink_to("chain.hea")
    (tmp_path / "chain.hea").symlink_to("store/0123abcd")
    with pytest.raises(RecordError, match=r"x\.hea, line 2: ADC zero 'zero' .* is a link to .*/store/0123abcd\)$"):
        read_header(tmp_path / "x")


def test_signal_lines_at_once_and_one_by_one_are_the_same(sample):
    """A space before them sends signal lines the slow way."""

    def outcome(lines):
        try:
            return repr(parse_header(lines, "x"))  # nan equals nan
        except RecordError as error:
            return str(error)

    rng = np.random.default_rng(0)
    for header in sorted(sample.rglob("*.hea"))[::4]:
        good = header.read_text().splitlines()
        for changes in range(12):
            lines = list(good)
            for _ in range(changes % 4):  # none, or some characters of the signal lines
                row = rng.integers(1, 13)
                at = rng.integers(len(lines[row]))
                lines[row] = (
                    lines[row][:at] + rng.choice(list(" \t\x0b_-+/:(x09\u0661")) + lines[row][at + rng.integers(2) :]
                )
            slowly = [lines[0], *(f" {line}" for line in lines[1:13]), *lines[13:]]
            assert outcome(lines) == outcome(slowly)
