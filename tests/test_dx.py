"""Codes in #Dx comments: read where they are beyond doubt, remarked upon where they are not."""

import csv

import numpy as np
import pytest
from conftest import fake_ecg, write_record
from hypothesis import given
from hypothesis import strategies as st

from data.dx import has_check_digit, read_dx
from data.inputs import read_input
from data.labels import CPSC2018, TABLES, load_class_set
from data.preprocess import SignalConfig
from data.records import find_records, parse_header

SINUS, RBBB = "426783006", "59118001"
HEADER = ["A 1 500 1000", "A.dat 16 1000/mV 16 0 5 -7 0 I"]


@pytest.mark.parametrize(
    "text",
    [
        f"{SINUS},{RBBB}",
        f" {SINUS} , {RBBB} ,",
        f"{SINUS};{RBBB}",
        f"{SINUS}; {RBBB};",
        f"{SINUS}|{RBBB}",
        f"{SINUS} | {RBBB}",
        f"{SINUS} {RBBB}",
        f"{SINUS}\t{RBBB}",
        f"{SINUS}  ,\t{RBBB}",
        f"{SINUS}/{RBBB}",
        f"{SINUS} + {RBBB}",
        f"{SINUS}、{RBBB}",
        f"{SINUS},,{RBBB}",
        f"{SINUS},{RBBB},{SINUS}",
        f"{SINUS} and {RBBB}",
        f"({SINUS}) ({RBBB})",
        f"{SINUS},Unknown,{RBBB},nan",
        f"[{SINUS}, {RBBB}]",
        f"({SINUS}, {RBBB})",
        f"{{{SINUS}; {RBBB}}}",
        f"['{SINUS}', '{RBBB}']",
        f'["{SINUS}","{RBBB}"]',
        f"['{SINUS}' '{RBBB}']",
        f'"{SINUS}","{RBBB}"',
        f'"{SINUS},{RBBB}"',
        f"{SINUS}.0,{RBBB}.0",
        f"{SINUS}.00 {RBBB}.",
        f"[{SINUS}. {RBBB}.]",
    ],
)
def test_two_codes_however_they_are_written(text):
    assert read_dx(text) == ((SINUS, RBBB), ())


@pytest.mark.parametrize(
    "text, codes, pieces",
    [
        (f"{SINUS} # seen by 1234567", (SINUS,), ("seen by 1234567",)),
        (f"{SINUS}, {RBBB} // two, or three", (SINUS, RBBB), ("two, or three",)),
        (f"{SINUS} sinus rhythm", (SINUS,), ("sinus rhythm",)),
        (f"{SINUS} (sinus rhythm), {RBBB} (RBBB)", (SINUS, RBBB), ("sinus rhythm", "RBBB")),
        (f"{SINUS} (non-specific, since 2019)", (SINUS,), ("non-specific since 2019",)),
        (f"{SINUS} (was {RBBB}, 164889003)", (SINUS,), (f"was {RBBB} 164889003",)),
        (f"{SINUS} -- not {RBBB}", (SINUS,), (f"not {RBBB}",)),
        (f"{SINUS}, previously {RBBB}", (SINUS,), (f"previously {RBBB}",)),
        (f"Sinus rhythm ({SINUS}), block ({RBBB})", (SINUS, RBBB), ("Sinus rhythm", "block")),
        (f"{SINUS} {RBBB} both", (SINUS, RBBB), ("both",)),
        (f"{SINUS}=SNR|{RBBB}=RBBB", (SINUS, RBBB), ("SNR", "RBBB")),
        (f"Sinus rhythm ({SINUS})", (SINUS,), ("Sinus rhythm",)),
        (f"SNOMED:{SINUS}; {RBBB}", (SINUS, RBBB), ("SNOMED",)),
        (f"{SINUS} sinus rhythm {RBBB}", (SINUS,), (f"sinus rhythm {RBBB}",)),
        (f"{SINUS}, abc", (SINUS,), ("abc",)),
        (f"{SINUS} 2019", (SINUS,), ("2019",)),
        (f"{SINUS} 20190504", (SINUS,), ("20190504",)),
        (f"{SINUS} of 1234569", (SINUS,), ("of 1234569",)),
        (f"{SINUS} AF", (SINUS,), ("AF",)),
    ],
)
def test_text_beside_codes_is_handed_back(text, codes, pieces):
    assert read_dx(text) == (codes, pieces)


@pytest.mark.parametrize(
    "text",
    [
        f"no {RBBB}",
        f"not {RBBB}",
        f"{RBBB}?",
        f"{RBBB} (possible)",
        f"{RBBB} ruled out",
        f"{SINUS} or {RBBB}",
        f"{SINUS} vs {RBBB}",
        f"{SINUS}:1",
        f"{SINUS} (80 %)",
        f'{{"{SINUS}": 1, "{RBBB}": 0}}',
        f"-{RBBB}",
        f"{RBBB}.5",
        f"{SINUS}-{RBBB}",
        f"x{RBBB}",
        "4.26783006E+08",
        "2019-05-04",
        "seen on 20190504",
        "patient 1234569",
        "Normal ECG",
        "sinus rhythm with AF",
        "rate 72, axis normal beyond doubt",
    ],
)
def test_what_is_ambiguous_is_no_code(text):
    codes, pieces = read_dx(text)
    assert codes == () and pieces


@pytest.mark.parametrize(
    "text", ["", " ", "Unknown", "unknown", "nan", "NaN", "None", "null", "N/A", "-", "[]", "''", ","]
)
def test_nothing_known_is_no_code_and_no_remark(text):
    assert read_dx(text) == ((), ())


def test_names_of_the_first_phase():
    names = tuple(CPSC2018)
    for separator in (",", ", ", ";", "|", " ", "\t"):
        assert read_dx(separator.join(names)) == (names, ())
    assert read_dx("['af', 'i-avb']") == (("AF", "I-AVB"), ())
    assert read_dx("(AF, RBBB)") == read_dx("[AF RBBB]") == read_dx("AF and RBBB") == (("AF", "RBBB"), ())
    assert read_dx("AF (atrial fibrillation), RBBB") == (("AF", "RBBB"), ("atrial fibrillation",))
    assert read_dx("AF?") == ((), ("AF?",))
    assert read_dx("AF, something else") == (("AF",), ("something else",))


def test_a_word_of_another_class_set_is_kept_and_remarked_upon():
    assert read_dx("AFIB; PACE_2") == (("AFIB", "PACE_2"), ("AFIB", "PACE_2"))


def test_check_digits_are_those_of_the_official_codes():
    """Every code of the Challenges has the right one, and none with one digit changed has."""
    codes = set()
    for table in TABLES.glob("dx_mapping_*.csv"):
        with open(table, newline="", encoding="utf-8") as rows:
            codes |= {row[1] for row in list(csv.reader(rows))[1:]}
    assert len(codes) > 100 and all(map(has_check_digit, codes))
    changed = {code[:3] + str((int(code[3]) + 1) % 10) + code[4:] for code in codes}
    assert not any(map(has_check_digit, changed))


@given(st.text(st.sampled_from("0123456789 ,;|.()[]#/'AFab?-:\t\u2028"), max_size=60))
def test_every_text_has_an_answer_and_every_code_stands_in_it(text):
    codes, pieces = read_dx(text)
    assert all(code in text or code.casefold() in text.casefold() for code in codes)
    assert len(set(codes)) == len(codes) and all(isinstance(piece, str) and piece for piece in pieces)


@pytest.mark.parametrize("line", ["#Dx: {}", "# Dx: {}", "#dx:{}", "## DX : {}", "#Dx = {}", "#Dx {}", "\t# Dx:\t{}"])
def test_spellings_of_the_comment(line):
    assert parse_header([*HEADER, line.format(f"{SINUS};{RBBB}")]).dx == (SINUS, RBBB)


def test_several_comments_count_together_and_others_do_not():
    header = parse_header([*HEADER, f"#Dx: {SINUS}", "#Rx: 123456", "#Dxs 1", f"# Dx: {RBBB}, {SINUS} (again)"])
    assert header.dx == (SINUS, RBBB)
    assert header.warnings == ("#Dx holds what is not a diagnosis code: 'again'",)


def test_a_warning_shows_a_bounded_part():
    (warning,) = parse_header([*HEADER, "#Dx: " + ", ".join(f"finding {i} " + "x" * 200 for i in range(40))]).warnings
    assert len(warning) < 600 and warning.endswith("and 35 more")


def test_from_file_to_target(tmp_path):
    signal = fake_ecg(np.random.default_rng(0), 2)
    texts = {
        "a": f"{SINUS}; {RBBB}",
        "b": f"[{SINUS}.0, {RBBB}.0]",
        "c": f"{SINUS} {RBBB} (both)",
        "d": "healthy person",
    }
    for name, text in texts.items():
        write_record(tmp_path, name, signal, dx=text)
    read = [read_input(record, SignalConfig()) for record in find_records(tmp_path)]
    targets = load_class_set("cinc2020").encode_all([header.dx for _, _, header, _ in read])
    assert targets.sum(axis=1).tolist() == [2, 2, 2, 0] and (targets[:3] == targets[0]).all()
    assert [len(warnings) for *_, warnings in read] == [0, 0, 1, 1]
    assert read[3][3] == ["#Dx holds what is not a diagnosis code: 'healthy person'"]
