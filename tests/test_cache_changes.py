"""What changes beside a cache is noticed: files that a header names, failures that are mended, copies."""

import hashlib
import os

import numpy as np
import pytest
from conftest import fake_ecg, flip_a_sample, write_record

from data.cache import NothingReadable, open_cache
from data.files import write_atomically
from data.inputs import read_input
from data.preprocess import SignalConfig
from data.records import RecordError, find_records
from data.shards import Shards


def write_two_files(folder, name, signal):
    """A recording whose limb leads lie in NAME_limb.dat and whose chest leads lie in NAME_chest.dat."""
    write_record(folder, name, signal)
    lines = (folder / f"{name}.hea").read_text().splitlines()
    for part, rows in (("limb", slice(0, 6)), ("chest", slice(6, 12))):
        (folder / f"{name}_{part}.dat").write_bytes(signal[rows].astype("<i2").tobytes(order="F"))
        for row in range(12)[rows]:
            lines[1 + row] = lines[1 + row].replace(f"{name}.mat 16+24", f"{name}_{part}.dat 16")
    (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
    (folder / f"{name}.mat").unlink()


@pytest.fixture
def reads(monkeypatch):
    """Names of the recordings that are read for a cache, in order."""
    names = []

    def spy(record, config):
        names.append(record.name)
        return read_input(record, config)

    monkeypatch.setattr("data.shards.read_input", spy)
    monkeypatch.setattr("data.cache.read_input", spy)
    return names


@pytest.fixture
def opened(tmp_path):
    """Function that opens the cache of tmp_path/in as it is now."""
    return lambda **how: open_cache(
        find_records(tmp_path / "in"), SignalConfig(), tmp_path / "cache", workers=1, quiet=True, **how
    )


@pytest.mark.parametrize("fate", ["changed", "deleted", "late", "touched"])
@pytest.mark.parametrize("linked", [False, True])
def test_every_file_that_a_header_names_is_watched(fate, linked, tmp_path, opened, reads):
    rng = np.random.default_rng(0)
    ecgs = [fake_ecg(rng, 2) for _ in range(3)]
    for i in range(3):
        write_two_files(tmp_path / "in", f"R{i}", ecgs[i])
    chest = tmp_path / "in" / "R1_chest.dat"
    if linked:  # as git-annex and Hugging Face keep files: what counts is the file at the end of the links
        store = tmp_path / "store"
        store.mkdir()
        chest.rename(store / "content")
        (store / "again").symlink_to("content")
        chest.symlink_to(store / "again")
        chest = store / "content"
    content = chest.read_bytes()
    if fate == "late":
        chest.unlink()
    first = opened()
    assert first.names == (["R0", "R2"] if fate == "late" else ["R0", "R1", "R2"])
    reads.clear()
    assert opened().names == first.names and reads == (["R1"] if fate == "late" else [])
    if fate == "changed":
        chest.write_bytes(fake_ecg(rng, 2)[6:].astype("<i2").tobytes(order="F"))
        os.utime(chest, ns=(1, 1))
    elif fate == "deleted":
        chest.unlink()
    elif fate == "touched":
        os.utime(chest, ns=(1, 1))
    else:
        chest.write_bytes(content)
    reads.clear()
    second = opened()
    assert set(reads) == {"R1"}  # the others come from the earlier cache
    assert second.names == (["R0", "R2"] if fate == "deleted" else ["R0", "R1", "R2"])
    for i, name in enumerate(second.names):
        assert (second.signal(i) == read_input(find_records(tmp_path / "in")[int(name[1])], SignalConfig())[0]).all()


def test_a_segment_that_changes_is_noticed(tmp_path, opened):
    rng = np.random.default_rng(0)
    for i in (1, 2):
        write_record(tmp_path / "in", f"M_{i}", fake_ecg(rng, 2))
    (tmp_path / "in" / "M.hea").write_text("M/2 12 500 2000\nM_1 1000\nM_2 1000\n")
    first = opened()
    assert first.names == ["M"]
    assert first.layouts == [["/.hea", "/_1.hea", "/_1.mat", "/_2.hea", "/_2.mat"]]
    write_record(tmp_path / "in", "M_2", fake_ecg(rng, 2))
    os.utime(tmp_path / "in" / "M_2.mat", ns=(1, 1))
    assert (opened().signal(0) != first.signal(0)).any()


def test_failures_are_tried_again_and_only_they(folder_of_records, tmp_path, opened, reads, monkeypatch):
    """Whatever the reason was: here memory, which leaves no trace in the files."""
    real = read_input

    def scarce(record, config):
        reads.append(record.name)
        if record.name in ("a/R00", "b/R01"):
            error = RecordError(f"{record.path}: does not fit into memory")
            error.stage = "reading"
            raise error
        return real(record, config)

    monkeypatch.setattr("data.shards.read_input", scarce)
    first = opened()
    assert len(first) == 22 and [name for name, _ in first.skipped] == ["a/R00", "b/R01"]
    reads.clear()
    assert len(opened(retry=False)) == 22 and reads == []
    monkeypatch.undo()
    second = opened()
    assert second.names == sorted([*first.names, "a/R00", "b/R01"]) and not second.skipped
    assert first.path.exists() and (first.signal(0) == second.signal(1)).all()  # somebody may train from it
    fresh = open_cache(find_records(folder_of_records), SignalConfig(), tmp_path / "fresh", workers=1, quiet=True)
    for file in fresh.path.iterdir():  # as if there had been no earlier one
        assert file.read_bytes() == (second.path / file.name).read_bytes(), file.name


def test_of_two_caches_the_one_with_fewer_skipped_is_opened(folder_of_records, opened, reads, monkeypatch):
    header = folder_of_records / "a" / "R00.hea"
    header.rename(header.with_suffix(".away"))
    header.symlink_to("nowhere")
    assert len(opened()) == 23
    header.unlink()
    header.with_suffix(".away").rename(header)  # as after `git annex get`, or chmod
    reads.clear()
    assert len(opened()) == 24 and set(reads) == {"a/R00"}
    reads.clear()
    assert len(opened()) == 24 and reads == []


def test_the_reason_is_that_of_today(folder_of_records, opened):
    signal = folder_of_records / "a" / "R00.mat"
    content = signal.read_bytes()
    signal.unlink()
    assert "missing" in opened().skipped_rows[0]["reason"]
    signal.write_bytes(content[:5000])
    (row,) = opened().skipped_rows
    assert "missing" not in row["reason"] and list(row) == ["record", "stage", "reason"]


def test_a_damaged_earlier_cache_is_not_copied_from(folder_of_records, opened, reads, monkeypatch, small_shards):
    first = opened()
    monkeypatch.setattr("data.cache.SMALL", 0)  # checksums are not compared before they are needed
    flip_a_sample(first.path / "signals_00000.i16")
    os.utime(folder_of_records / "b" / "R23.mat", ns=(1, 1))
    reads.clear()
    second = opened()
    assert reads == ["a/R00", "b/R23"] and second.path != first.path
    assert (second.signal(0) == read_input(find_records(folder_of_records)[0], SignalConfig())[0]).all()


def test_if_nothing_can_be_read_the_reasons_are_told(folder_of_records, tmp_path, opened):
    for signal in folder_of_records.rglob("*.mat"):
        signal.unlink()
    for header in list(folder_of_records.glob("b/*.hea"))[:5]:
        header.write_text("nonsense")
    with pytest.raises(NothingReadable) as caught:
        opened()
    message, skipped = str(caught.value), caught.value.skipped_rows
    assert message.startswith("none of 24 recordings could be read: 19 times 'ID.mat: signal file is missing', 5 times")
    assert len(skipped) == 24 and set(skipped[0]) == {"record", "stage", "reason"} and "\n" not in message
    assert not list((tmp_path / "cache").iterdir())
    (folder_of_records / "a" / "R00.hea").write_text("nonsense")
    write_record(folder_of_records / "a", "R00", fake_ecg(np.random.default_rng(0)))
    assert len(opened()) == 1


def test_at_most_three_reasons_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(5):
        write_record(tmp_path / "in", f"R{i}", fake_ecg(rng, 2))
        (tmp_path / "in" / f"R{i}.hea").write_text(f"R{i} {'x' * i}\n")
    with pytest.raises(NothingReadable, match="and 2 other reasons$"):
        open_cache(find_records(tmp_path / "in"), SignalConfig(), tmp_path / "cache", workers=1, quiet=True)


def test_copies_are_found_by_content(tmp_path, opened):
    rng = np.random.default_rng(0)
    ecg, other = fake_ecg(rng, 2), fake_ecg(rng, 2)
    almost = ecg.copy()
    almost[3, 500:] += 50
    signals = {"a/A": ecg, "a/B": other, "b/C": ecg, "c/d/E": ecg, "c/F": almost, "c/G": ecg[:, :900]}
    for name, signal in {**signals, "a/Z": ecg, "b/Z": ecg}.items():
        folder, _, record_id = name.rpartition("/")
        gain = 10**7 if record_id == "Z" else 1000  # so that nothing is left of Z but a microvolt now and then
        age = str(30 + len(folder))
        write_record(tmp_path / "in" / folder, record_id, signal, age=age, dx=str(len(folder)), gain=gain)
    cache = opened()
    assert cache.duplicates == [("a/A", "b/C", "c/d/E")]  # and not the constant ones, which belong to nobody
    by_name = dict(zip(cache.names, cache.hashes))
    assert by_name["a/Z"] == by_name["b/Z"] and len(set(by_name.values())) == 5
    assert all(len(text) == 32 and int(text, 16) >= 0 for text in cache.hashes)
    assert [name for name, constant in zip(cache.names, cache.constant) if constant] == ["a/Z", "b/Z"]
    assert {name for name, _ in cache.warnings} >= {"a/Z", "b/Z"}  # their amplitudes are remarked upon
    again = opened()
    assert (again.hashes, again.duplicates) == (cache.hashes, cache.duplicates)


def test_the_hash_is_that_of_the_microvolts(folder_of_records, opened):
    cache = opened()
    for i in (0, 23):
        content = cache.signal(i).astype("<i2").tobytes()
        assert cache.hashes[i] == hashlib.blake2b(content, digest_size=16).hexdigest()


def test_a_file_is_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write_atomically(file, b"old")
    (tmp_path / "target").write_bytes(b"kept")
    (tmp_path / "link").symlink_to("target")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "target").read_bytes() == b"kept" and (tmp_path / "link").read_bytes() == b"new"
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and sorted(f.name for f in tmp_path.iterdir()) == ["file", "link", "target"]


def test_of_caches_that_are_out_of_date_no_signal_is_read(folder_of_records, opened, monkeypatch):
    """They stay, for somebody may be training from them, but they must not make every start slower."""
    for i in range(3):
        os.utime(folder_of_records / "a" / "R00.mat", ns=(i, i))
        last = opened()
    asked, real = [], Shards.open_all
    monkeypatch.setattr(Shards, "open_all", lambda shards: (asked.append(shards.folder), real(shards))[1])
    assert opened().path == last.path and asked == [last.path] and len(list(last.path.parent.iterdir())) == 3
