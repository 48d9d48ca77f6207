"""Recordings in several files, and behind links into a store."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import LEADS, fake_ecg, write_record

from data.records import (
    RecordError,
    find_records,
    read_record,
)


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
