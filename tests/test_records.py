"""Recordings are found, at any depth and under any name."""

import os
from pathlib import Path

import numpy as np
import pytest
from conftest import fake_ecg, rewrite, write_record

from data.files import walk_files
from data.inputs import read_input
from data.preprocess import SignalConfig
from data.records import (
    RecordError,
    find_records,
    read_record,
    record_files,
    recording_headers,
)


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
