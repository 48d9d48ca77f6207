"""The cache's index, files and folders are not trusted: what does not fit is built again."""

import json
import os
import zipfile

import numpy as np
import pytest
from conftest import fake_ecg, write_record

from data.cache import NothingReadable, open_cache
from data.inputs import read_input
from data.locks import locked
from data.preprocess import SignalConfig
from data.records import find_records

NAMES = ["a", "b", "c"]
CHANGES = {  # of an index of three recordings in one shard
    "offsets too few": lambda index: {"offsets": index["offsets"][:-1]},
    "offsets backwards": lambda index: {"offsets": index["offsets"][::-1]},
    "no offsets": lambda index: {"offsets": np.zeros(0, np.int64)},
    "offsets of two dimensions": lambda index: {"offsets": index["offsets"][:, None]},
    "offsets within leads": lambda index: {"offsets": index["offsets"] - [0, 1, 1, 0]},
    "offsets as floats": lambda index: {"offsets": index["offsets"].astype(float)},
    "checksums too few": lambda index: {"crc": index["crc"][:2]},
    "checksums as texts": lambda index: {"crc": index["crc"].astype(str)},
    "shards too few": lambda index: {"first": index["first"][:-1]},
    "shards elsewhere": lambda index: {"first": index["first"] + 1},
    "no shards": lambda index: {"first": np.zeros(0, np.int64)},
    "one number for shards": lambda index: {"first": np.int64(3)},
    "covariates too narrow": lambda index: {"covariates": index["covariates"][:, :1]},
    "covariates NaN": lambda index: {"covariates": index["covariates"] * np.nan},
    "texts a list": b"[]",
    "texts cut": b"{",
    "texts nested": b"[" * 10**6,
    "texts binary": b"\xff\0",
    "objects": lambda index: {"texts": np.array([{}])},
    "names numbers": {"names": [1, 2, 3]},
    "names of others": {"names": ["a", "b", "x"]},
    "names too few": {"names": NAMES[:2]},
    "names one text": {"names": "abc"},
    "diagnoses numbers": {"dx": [5] * 3},
    "diagnoses texts": {"dx": NAMES},
    "diagnoses of numbers": {"dx": [[5]] * 3},
    "diagnoses too few": {"dx": [["1"]]},
    "skipped without names": {"skipped": [{"x": 1}]},
    "skipped numbers": {"skipped": [5]},
    "skipped without a reason": {"names": NAMES[:2], "skipped": [{"record": "c", "stage": "reading"}]},
    "layouts texts": {"layouts": ["/.hea"]},
    "layouts empty": {"layouts": [[""]]},
    "no layouts": {"layouts": []},
    "layouts negative": lambda index: {"layout": index["layout"] - 1},
    "stamps too narrow": lambda index: {"stamps": index["stamps"][:, 1:]},
    "hashes of texts": lambda index: {"hashes": index["hashes"].astype("S1")},
    "hashes too few": lambda index: {"hashes": index["hashes"][1:]},
    "constants as numbers": lambda index: {"constant": index["constant"].astype(int)},
    "warnings numbers": {"warnings": [5]},
    "warnings alone": {"warnings": [["a"]]},
    "warnings a dictionary": {"warnings": {"ab": 1}},
}


@pytest.fixture
def built(tmp_path):
    """(path of a cache of three recordings, function that opens it, or builds it again)."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        write_record(tmp_path / "in", name, fake_ecg(rng, 2))
    records, config = find_records(tmp_path / "in"), SignalConfig()

    def opened():
        return open_cache(records, config, tmp_path / "cache", quiet=True)

    return opened().path, opened


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_that_does_not_fit_is_not_trusted(change, built, capsys):
    path, opened = built
    with np.load(path / "index.npz") as index:
        good = dict(index)
    change = CHANGES[change]
    if isinstance(change, dict):
        change = json.dumps(json.loads(good["texts"].tobytes()) | change).encode()
    np.savez(
        path / "index.npz",
        **good | ({"texts": np.frombuffer(change, np.uint8)} if isinstance(change, bytes) else change(good)),
    )
    cache = opened()
    assert (
        "rebuilt: its index" in capsys.readouterr().out
        and cache.names == NAMES
        and not cache.skipped
        and not cache.warnings
    )


@pytest.mark.parametrize("name", ["meta.json", "index.npz", "signals_00000.i16"])
@pytest.mark.parametrize(
    "put",
    [
        os.mkfifo,
        os.mkdir,
        lambda file: file.symlink_to("/dev/zero"),
        lambda file: file.symlink_to(file.name),
        lambda file: file.write_bytes(b"[" * 10**6),
    ],
    ids=["pipe", "folder", "endless device", "link to itself", "nested"],
)
def test_what_is_no_file_of_a_cache_is_neither_waited_for_nor_read(name, put, built, capsys):
    path, opened = built
    (path / name).unlink()
    put(path / name)
    assert opened().names == NAMES and "rebuilt" in capsys.readouterr().out


def test_an_index_that_unpacks_to_more_than_itself_is_not_unpacked(built, capsys):
    path, opened = built
    with zipfile.ZipFile(path / "index.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("texts.npy", b"\0" * 10**8)
    assert (
        opened().names == NAMES
        and "unpacks to 100000000)" not in (out := capsys.readouterr().out)
        and "unpacks to 100000000" in out
    )


def test_builders_of_one_process_number_do_not_meet(built, tmp_path, monkeypatch):
    """Two containers that share a cache folder: the process numbers are the same, often 1."""
    path, opened = built
    (path / "meta.json").unlink()
    other = path.with_name(f"{path.name.partition('-')[0]}.partial-{os.getpid()}")
    other.mkdir()
    with locked(other):
        assert opened().names == NAMES and other.exists()


def test_the_folder_of_a_builder_that_has_not_locked_it_yet_stays(built, monkeypatch):
    path, opened = built
    (path / "meta.json").unlink()
    new = path.with_name(f"{path.name.partition('-')[0]}.partial-1")
    new.mkdir()
    assert opened().names == NAMES and new.exists()


def test_every_file_is_flushed_before_the_folder_is_renamed(built, monkeypatch):
    """After a power cut the index must not be empty while meta.json says that all is well."""
    path, opened = built
    (path / "meta.json").unlink()
    flushed, real = set(), os.fsync

    def fsync(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr("os.fsync", fsync)
    opened()
    assert {file.stat().st_ino for file in path.iterdir()} == flushed and len(flushed) == 3


def test_what_does_not_fit_into_memory_is_skipped_and_warnings_are_printable(built, tmp_path, monkeypatch):
    def scarce(signal, *_):
        raise MemoryError

    write_record(tmp_path / "odd", "d", fake_ecg(np.random.default_rng(0), 2))
    header = tmp_path / "odd" / "d.hea"
    header.write_text(header.read_text().replace(" 0 II\n", " 0 I\x1b[2JI\n"))
    (record,) = find_records(tmp_path / "odd")
    warnings = read_input(record, SignalConfig())[3]
    assert any("[2J" in text for text in warnings) and all(text.isprintable() for text in warnings)
    monkeypatch.setattr("data.covariates.rhythm", scarce)
    with pytest.raises(
        NothingReadable, match="none of 1 recordings could be read: 1 times 'ID: does not fit into"
    ) as e:
        open_cache([record], SignalConfig(), tmp_path / "cache", quiet=True)
    assert e.value.skipped_rows == [
        {"record": "d", "stage": "preprocessing", "reason": f"{record.path}: does not fit into memory"}
    ]
