"""data.inspect: counts, names, duplicates and faults of a folder with known contents."""

import json
import subprocess
import sys

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, fake_ecg, write_record

from data import inspect
from data.examine import examined
from data.page import Section, Table, page_text, write_page
from data.records import Record, find_records
from data.sources import COLLECTIONS, completeness, sources_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Seven recordings of three sources: two with the same samples, one of each fault, one unreadable."""
    top = tmp_path_factory.mktemp("inspected")
    rng = np.random.default_rng(0)
    signal = fake_ecg(rng)
    write_record(top / "georgia", "E00001", signal, dx="426783006,164889003", age="40", sex="Female")
    write_record(top / "ptb-xl" / "g1", "HR00001", signal, dx="426783006", age="17")
    write_record(top / "mine", "flat", np.vstack([fake_ecg(rng)[:11], np.full((1, 5000), 3)]).astype(np.int16), dx="")
    broken = 5 * fake_ecg(rng)
    broken[0] = -broken[0]
    write_record(top / "mine", "broken", broken, dx="99999", age="Unknown", sex="Unknown")
    write_record(top / "mine", "huge", fake_ecg(rng, sample_freq=250), sample_freq=250, gain=1)
    write_record(top / "mine", "E00001", fake_ecg(rng)[:3], dx="164889003")
    write_record(top / "mine", "short", fake_ecg(rng))
    (top / "mine" / "short.mat").write_bytes((top / "mine" / "short.mat").read_bytes()[:1000])
    return top


@pytest.fixture(scope="module")
def sections(folder):
    records = find_records(folder)
    results = examined(records, signals=True, workers=1)
    return {section.key: section for section in inspect.card(records, results, signals=True)}


def rows_of(section, part=0):
    """{first cell: {column: cell}} of a section's table."""
    table = section.parts[part]
    return {row[0]: dict(zip(table.columns, row)) for row in table.rows}


def test_recordings_by_source(sections):
    rows = rows_of(sections["sources"])
    assert list(rows) == ["PTB-XL", "Georgia", "mine"]
    assert rows["Georgia"]["recordings"] == "1" and rows["Georgia"]["published"] == "10,344"
    assert rows["Georgia"]["against what was published"] == "incomplete, 10,343 missing"
    assert (rows["mine"]["recordings"], rows["mine"]["published"]) == ("5", "")
    assert (rows["mine"]["without diagnosis"], rows["mine"]["unreadable"]) == ("1", "1")
    assert "CPSC" in sections["sources"].texts[0] and "Georgia" not in sections["sources"].texts[0]


def test_rates_leads_units_people(sections):
    signals = rows_of(sections["signals"])
    assert signals["Georgia"]["Hz"] == "500" and signals["mine"]["Hz"] == "500 (75 %), 250 (25 %)"
    assert signals["Georgia"]["leads"] == "12 standard leads" and "I II III" in signals["mine"]["leads"]
    assert "1/mV" in signals["mine"]["gain and unit"]
    people = rows_of(sections["people"])
    assert people["PTB-XL"]["below 18"] == "1" and people["Georgia"]["female"] == "1"
    assert people["mine"]["sex unknown"] == "1" and people["mine"]["age unknown"] == "1"


def test_classes_with_names(sections):
    rows = {row["code"]: row for row in rows_of(sections["classes"]).values()}
    assert (rows["164889003"][""], rows["164889003"]["all"]) == ("AF", "2")
    assert rows["164889003"]["scored in"] == "2020 2021" and rows["164889003"]["Georgia"] == "1"
    assert rows["99999"]["scored in"] == "unknown"
    assert "1 of them not in the Challenge's tables" in sections["classes"].texts[0]


def test_duplicates_quality_and_faults(sections):
    doubles = " ".join(cell for part in sections["doubles"].parts for row in part.rows for cell in row)
    assert "georgia/E00001, mine/E00001" in doubles  # the same id
    assert "georgia/E00001, ptb-xl/g1/HR00001" in doubles  # the same samples
    assert any("1 of them across sources" in text for text in sections["doubles"].texts)
    quality = rows_of(sections["quality"])
    for fault in ("flat leads", "Einthoven's law broken", "scale off by about 1000", "missing leads"):
        assert quality[fault]["mine"] == "1" and quality[fault]["Georgia"] == "0"
    [[name, reason]] = sections["unreadable"].parts[0].rows
    assert name == "mine/short" and "short.mat" in reason


def test_headers_alone_and_several_processes_say_the_same(folder, monkeypatch):
    records = find_records(folder)
    one = examined(records, signals=False, workers=1)
    monkeypatch.setattr("data.examine.FEW", 2)
    monkeypatch.setattr("data.examine.CHUNK", 3)
    assert repr(examined(records, signals=False, workers=2)) == repr(one)  # NaN is not equal to itself
    assert not any(item.digest for item in one) and len(one) == 7


def test_the_command_prints_and_writes_a_page(folder, tmp_path):
    command = [sys.executable, "-m", "data.inspect", str(folder), "--signals", "--html", str(tmp_path / "card.html")]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr  # one recording is unreadable
    assert "Diagnoses by source" in done.stdout and "atrial fibrillation" in done.stdout
    page = (tmp_path / "card.html").read_text(encoding="utf-8")
    assert "atrial fibrillation" in page and "http" not in page and "<script" not in page
    done = subprocess.run([*command[:3], "nowhere"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "nowhere: folder is missing" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "source, name",
    [
        ("cpsc_2018", "CPSC"),
        ("WFDB_CPSC2018_2/g2", "CPSC-Extra"),
        ("cpsc_2018_extra", "CPSC-Extra"),
        ("st_petersburg_incart", "INCART"),
        ("WFDB_StPetersburg", "INCART"),
        ("training/ptb-xl/g12", "PTB-XL"),
        ("training/ptb/g1", "PTB"),
        ("WFDB_Ga", "Georgia"),
        ("chapman_shaoxing", "Chapman-Shaoxing"),
        ("WFDB_Ningbo", "Ningbo"),
        ("mine", "mine"),
        ("", "."),
    ],
)
def test_collections_are_known_by_their_folders(source, name):
    assert sources_of([Record("R1", "x", source)]) == [name]


def test_collections_are_known_by_many_ids_and_not_by_one():
    many = [Record(f"HR{i:05d}", "x", "all") for i in range(20)]
    assert set(sources_of(many)) == {"PTB-XL"}
    assert set(sources_of(many[:19])) == {"all"} and set(sources_of([*many, Record("mine", "x", "all")])) == {"all"}
    ids = ["A0001", "Q0001", "I0001", "S0001", "E00001", "JS00001", "JS10646", "JS10647", "JS45551"]
    names = [
        "CPSC",
        "CPSC-Extra",
        "INCART",
        "PTB",
        "Georgia",
        "Chapman-Shaoxing",
        "Chapman-Shaoxing",
        "Ningbo",
        "Ningbo",
    ]
    assert sources_of([*many, *(Record(text, "x", "all") for text in ids)])[20:] == names


def test_published_counts():
    assert sum(collection.n_records for collection in COLLECTIONS) == 88253  # as published for the training set of 2021
    georgia = next(collection for collection in COLLECTIONS if collection.name == "Georgia")
    assert completeness(georgia, 10344) == "complete"
    assert "2 missing" in completeness(georgia, 10342) and "1 more" in completeness(georgia, 10345)


def test_page_escapes_what_it_is_given(tmp_path):
    hostile = "<script>alert(1)</script>\ud800\x1b[31m"
    sections = [Section("s", hostile, [hostile], [Table([hostile, "n"], [[hostile, "1"]])])]
    write_page(tmp_path / "new" / "page.html", hostile, hostile, sections)
    assert "<script" not in (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    assert "\x1b" not in page_text(hostile, hostile, sections)
    assert json.dumps(page_text("a", "b", [])) == '"a\\nb"'
