"""Preprocessed signals of a whole folder in int16 memory maps, in microvolts.

The first run over a folder reads, resamples and stores every recording; later runs start at once. A cache lives in
`CACHE_FOLDER/KEY/`, where KEY is a hash of the format version, the signal configuration and every file's name, size and
time of change: a changed folder or another configuration has another key, so a stale cache is never read.

    signals_00000.i16 ...   shards: some recordings each, one after another, each (12, T) int16 in microvolts, C order
    index.npz               offsets, CRC-32 and covariates (age, sex, rhythm) of every recording; with which recordings the shards
                            begin; names, diagnoses, skipped recordings and warnings as JSON
    meta.json               magic word, version, key and sizes; written last, so its absence means a half-written cache

Checksums are compared before a signal is given out: at once where the cache is small, shard by shard where it is large.
"""

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.covariates import N_COVARIATES
from data.files import open_regular, written
from data.locks import locked
from data.shards import ShardError, Shards, write_shards

MAGIC, VERSION = "ecg-signal-cache", 5
SMALL = 2**31  # bytes of signals that are compared with their checksums at once, which takes a second or two
TEXTS = ("names", "dx", "skipped", "warnings")  # kept as JSON: an array is as wide as its longest text
MAX_META, MAX_INDEX = 2**20, 2**31  # bytes; the index of a million recordings has a tenth of it


class CacheError(RuntimeError):
    """The cache folder cannot be used; the message says which file and why."""


@dataclass(frozen=True)
class SignalCache:
    """Signals and header facts of R readable recordings."""

    path: Path  # of its folder
    shards: Shards  # the signals' files
    offsets: np.ndarray  # (R + 1,) int64, of the signals one after another, in samples of any lead
    names: list  # R strings 'source/record_id'
    dx: list  # R tuples of diagnosis codes
    covariates: np.ndarray  # (R, N_COVARIATES) float32, see data.covariates
    skipped_rows: list  # of recordings that could not be read: {"record": name, "stage": ..., "reason": ...}
    warnings: list  # (name, remark) of readable but suspicious recordings

    def __len__(self):
        return len(self.names)

    def signal(self, i):
        """(12, T_i) int16 view in microvolts. A CacheError if its file was damaged; the cache is then built anew the
        next time.
        """
        try:
            return self.shards.signal(i)
        except ShardError as error:
            with contextlib.suppress(OSError):
                (self.path / "meta.json").unlink()
            raise CacheError(f"{self.path}: {error}; start again to have the cache rebuilt") from None

    @property
    def n_bytes(self):
        return 2 * int(self.offsets[-1])

    @property
    def sources(self):
        """Folder of each recording relative to the input folder ('' at its top)."""
        return [name.rpartition("/")[0] for name in self.names]

    @property
    def skipped(self):
        """(name, reason) of recordings that could not be read."""
        return [(row["record"], row["reason"]) for row in self.skipped_rows]


def open_cache(records, config, folder, workers=2, quiet=False):
    """SignalCache of `records` (from `find_records`) preprocessed by `config` (SignalConfig); built if it is not there.
    Raises CacheError if the folder cannot be written."""
    key = cache_key(records, config)
    path, names = Path(folder) / key, [record.name for record in records]
    try:
        return _load(path, key, names)
    except CacheError as error:
        reason = error
    try:
        if path.exists():
            print(f"Cache {path} is rebuilt: {reason}")
            shutil.rmtree(path)
        _remove_abandoned(path)
        _build(records, config, path, key, workers, quiet)
    except OSError as error:
        raise CacheError(
            f"{path}: the cache cannot be written ({error.strerror or error}); name a writable folder with --cache"
        ) from error
    return _load(path, key, names)


def cache_key(records, config):
    """Hash of everything that decides the cache's content."""
    digest = hashlib.sha256(json.dumps([MAGIC, VERSION, config.to_dict()], sort_keys=True).encode())
    for record in records:
        digest.update(record.name.encode("utf-8", "surrogateescape"))
        for ending in (".hea", ".mat", ".dat"):
            try:
                stat = os.stat(record.path + ending)
            except OSError:
                continue  # not there or not readable: reading the recording will say so
            digest.update(f"{ending} {stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:24]


def _load(path, key, names):
    """SignalCache at `path` of recordings with these names. Raises CacheError with the reason if it cannot be
    trusted.
    """
    try:
        with open(path / "meta.json", "rb", opener=open_regular) as file:
            meta = json.loads(file.read(MAX_META))
    except (OSError, ValueError, RecursionError):
        raise CacheError("it is not there or half-written") from None
    if not isinstance(meta, dict) or (meta.get("magic"), meta.get("version"), meta.get("key")) != (MAGIC, VERSION, key):
        raise CacheError("it is not a cache of this format")
    try:
        with open(path / "index.npz", "rb", opener=open_regular) as file:
            first, offsets, crc, covariates, texts = _read_index(file)
        _check_index(first, offsets, crc, covariates, texts, names)
    except CacheError:
        raise
    except Exception as error:  # there is no end to what numpy, zipfile and json may raise on a foreign file
        raise CacheError(f"its index cannot be read ({error!r:.200})") from None
    cache = SignalCache(
        path,
        Shards(path, first, offsets, crc),
        offsets,
        texts["names"],
        [tuple(codes) for codes in texts["dx"]],
        covariates,
        texts["skipped"],
        [tuple(row) for row in texts["warnings"]],
    )
    try:
        cache.shards.check_sizes()
        if cache.n_bytes <= SMALL:
            cache.shards.open_all()
    except (ShardError, OSError) as error:
        raise CacheError(str(error)) from None
    return cache


def _read_index(file):
    """Contents of an open index.npz; no more is unpacked than it has bytes."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > size or size > MAX_INDEX:
        raise CacheError(f"its index of {size} bytes unpacks to {unpacked}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as index:
        return *(index[name] for name in ("first", "offsets", "crc", "covariates")), json.loads(
            index["texts"].tobytes()
        )


def _check_index(first, offsets, crc, covariates, texts, names):
    """Raises CacheError, or whatever a foreign index leads to, unless this is what `_index` makes of recordings with
    these names.
    """
    n, skipped = len(texts["names"]), texts["skipped"]
    sound = (
        first.ndim == 1
        and first.dtype == np.int64
        and first[0] == 0
        and first[-1] == n
        and (np.diff(first) >= 0).all()
        and offsets.shape == (n + 1,)
        and offsets.dtype == np.int64
        and offsets[0] == 0
        and (np.diff(offsets) >= 0).all()
        and not (offsets % 12).any()
        and crc.shape == (n,)
        and crc.dtype == np.uint32
        and covariates.shape == (n, N_COVARIATES)
        and covariates.dtype == np.float32
        and np.isfinite(covariates).all()
        and sorted(texts["names"] + [row["record"] for row in skipped]) == sorted(names)
        and len(texts["dx"]) == n
        and _hold_texts(texts["dx"])
        and all(list(row) == ["record", "stage", "reason"] for row in skipped)
        and _hold_texts([list(row.values()) for row in skipped])
        and all(len(row) == 2 for row in texts["warnings"])
        and _hold_texts(texts["warnings"])
    )
    if not sound:
        raise CacheError("its index does not fit together or not to the recordings")


def _hold_texts(rows):
    """Whether this is a list of lists of str."""
    return type(rows) is list and all(type(row) is list and all(type(text) is str for text in row) for row in rows)


def _remove_abandoned(path):
    """Clear away what builders of this cache left that were killed; one that is still at work holds the lock. A
    folder without shards is left alone, for its builder may be about to lock it.
    """
    for partial in {shard.parent for shard in path.parent.glob(f"{path.name}.partial-*/signals_*")}:
        with locked(partial) as abandoned:
            if abandoned:
                shutil.rmtree(partial, ignore_errors=True)


def _build(records, config, path, key, workers, quiet):
    """Read all recordings and write the cache."""
    partial = path.with_name(
        f"{key}.partial-{secrets.token_hex(8)}"
    )  # a process number is not unique where containers share a folder
    partial.mkdir(parents=True)
    try:
        with locked(partial):
            index = _index(write_shards(records, config, partial, workers, quiet))
            with written(partial / "index.npz") as out:
                np.savez(out, **index)
            meta = {
                "magic": MAGIC,
                "version": VERSION,
                "key": key,
                "n_records": len(index["crc"]),
                "signal": config.to_dict(),
            }
            with written(partial / "meta.json") as out:
                out.write(json.dumps(meta, indent=1).encode())
            try:
                partial.rename(path)
            except OSError:
                if not (path / "meta.json").exists():  # or else another process was faster
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _index(parts):
    """Arrays of the index, of what the shards hold."""

    def together(name):
        return [value for part in parts for value in part[name]]

    texts = json.dumps({name: together(name) for name in TEXTS}).encode()
    return {
        "first": np.cumsum([0] + [len(part["crc"]) for part in parts], dtype=np.int64),
        "offsets": np.cumsum([0] + together("sizes"), dtype=np.int64),
        "crc": np.array(together("crc"), np.uint32),
        "covariates": np.concatenate(
            [np.empty((0, N_COVARIATES), np.float32)] + [part["covariates"] for part in parts]
        ),
        "texts": np.frombuffer(texts, np.uint8),
    }
