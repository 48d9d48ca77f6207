"""Preprocessed signals of a whole folder in int16 memory maps, in microvolts.

The first run over a folder reads, resamples and stores every recording; later runs start at once. A cache lies in
`CACHE_FOLDER/KEY-CONTENT/`. KEY is a hash of the format version, the signal configuration and the recordings' names.
CONTENT is one of the size and time of change of every file that decides what a recording holds (those that its header
names and its segments' ones included; a link counts as the file it leads to), and of which recordings were skipped.

    signals_00000.i16 ...   shards: some recordings each, one after another, each (12, T) int16 in microvolts, C order
    index.npz               by recording: offset, CRC-32, hash of the signal, stamp of its files, which they are, and
                            covariates (age, sex, rhythm); with which recordings the shards begin; names, diagnoses,
                            skipped recordings and warnings as JSON
    meta.json               magic word, version, key and sizes; written last, so its absence means a half-written cache

At each start the stamps are compared, and recordings that were skipped are tried again. If a file has changed, or a
skipped recording can be read by now, a new cache is written beside the old one, from which somebody may be training; of
recordings that are as they were, the old one's signals are taken.

Checksums are compared before a signal is given out: at once where the cache is small, shard by shard where it is large.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import zipfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data.covariates import N_COVARIATES
from data.files import open_regular, written
from data.headers import printable
from data.inputs import read_input
from data.locks import locked
from data.preprocess import SignalConfig
from data.records import Record, RecordError
from data.shards import (
    HASH_BYTES,
    STAMP_BYTES,
    Kept,
    ShardError,
    Shards,
    file_stamp,
    laid_out,
    shard_file,
    skipped_row,
    write_shards,
)

MAGIC, VERSION = "ecg-signal-cache", 6
SMALL = 2**31  # bytes of signals that are compared with their checksums at once, which takes a second or two
MAX_META, MAX_INDEX = 2**20, 2**31  # bytes; the index of a million recordings has a fifth of it
N_REASONS = 3  # that are shown where no recording can be read
MAX_REASON = 200  # characters of each

# What the index holds by recording: {name: (shape of a row, type)}.
ARRAYS = {
    "crc": ((), np.uint32),
    "hashes": ((HASH_BYTES,), np.uint8),
    "stamps": ((STAMP_BYTES,), np.uint8),
    "constant": ((), np.bool_),
    "layout": ((), np.int32),
    "covariates": ((N_COVARIATES,), np.float32),
}
TEXTS = ("names", "dx", "skipped", "warnings")  # kept as JSON: an array is as wide as its longest text


class CacheError(RuntimeError):
    """The cache folder cannot be used; the message says which file and why."""


class NothingReadable(CacheError):
    """Not one recording could be read. `skipped_rows`: as those of a SignalCache, to be written before the end."""

    def __init__(self, skipped_rows: list[dict], records: Sequence[Record]):
        self.skipped_rows = skipped_rows
        faults = _most_frequent_faults(skipped_rows, records)
        super().__init__(f"none of {len(skipped_rows)} recordings could be read: {faults}")


@dataclass(frozen=True)
class SignalCache:
    """Signals and header facts of R readable recordings."""

    path: Path  # of its folder
    shards: Shards  # the signals' files
    offsets: np.ndarray  # (R + 1,) int64, of the signals one after another, in samples of any lead
    names: list[str]  # R names 'source/record_id'
    dx: list[tuple[str, ...]]  # R tuples of diagnosis codes
    covariates: np.ndarray  # (R, N_COVARIATES) float32, see data.covariates
    skipped_rows: list[dict]  # of recordings that could not be read: {"record": name, "stage": ..., "reason": ...}
    warnings: list[tuple[str, str]]  # (name, warning) of readable but suspicious recordings
    hash_bytes: np.ndarray  # (R, HASH_BYTES) uint8, hashes of the signals
    constant: np.ndarray  # (R,) bool, no lead changes from first to last sample
    layouts: list[list[str]]  # the different ways in which files are named after a recording, see data.shards
    layout: np.ndarray  # (R,) int32, which of them a recording has
    stamps: np.ndarray  # (R, STAMP_BYTES) uint8, of its files when they were read

    def __len__(self) -> int:
        return len(self.names)

    def signal(self, i: int) -> np.ndarray:
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
    def n_bytes(self) -> int:
        return 2 * int(self.offsets[-1])

    @property
    def sources(self) -> list[str]:
        """Folder of each recording relative to the input folder ('' at its top)."""
        return [name.rpartition("/")[0] for name in self.names]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """(name, reason) of recordings that could not be read."""
        return [(row["record"], row["reason"]) for row in self.skipped_rows]

    @cached_property
    def hashes(self) -> list[str]:
        """R hexadecimal hashes: equal ones mean equal signals, whatever the recordings' names."""
        return [row.tobytes().hex() for row in self.hash_bytes]

    @cached_property
    def duplicates(self) -> list[tuple[str, ...]]:
        """Groups of names whose signals are identical. Constant signals are left out: what a recorder without a patient
        writes is equal everywhere and says nothing about whose it is; they are remarked upon as flat leads.
        """
        rows = np.flatnonzero(~self.constant)
        _, which, count = np.unique(self.hash_bytes[rows], axis=0, return_inverse=True, return_counts=True)
        groups = defaultdict(list)
        for row, group in zip(rows.tolist(), which.ravel().tolist()):
            if count[group] > 1:
                groups[group].append(self.names[row])
        return [tuple(names) for names in groups.values()]


def open_cache(
    records: Sequence[Record],
    config: SignalConfig,
    folder: str | os.PathLike,
    workers: int = 2,
    quiet: bool = False,
    retry: bool = True,
) -> SignalCache:
    """The cache of some recordings, built if it is not there.

    Args:
        records: from `find_records`.
        config: how they are preprocessed.
        folder: where caches lie.
        workers: processes that read recordings.
        quiet: whether to show no progress.
        retry: whether recordings that were skipped are tried again. Of processes that open one cache together, only
            the first one may, so that all see the same recordings.

    Returns:
        SignalCache of the recordings that can be read, in the order of `records`.

    Raises:
        NothingReadable: if that is none of them.
        CacheError: if the folder cannot be written.
    """
    key = cache_key(records, config)
    earlier = None
    try:
        for path in _candidates(folder, key):
            try:
                cache = _load(path, key, records)
                current = is_current(cache, records)
                if current:
                    _open_shards(cache)
            except CacheError as error:
                print(f"Cache {path} is rebuilt: {error}")
                _remove(path)
                continue
            skipped_rows = cache.skipped_rows
            if current and retry and skipped_rows:
                skipped_rows = _still_skipped(cache, records, config)
            if current and skipped_rows is not None:
                return replace(cache, skipped_rows=skipped_rows)
            earlier = cache
        _remove_abandoned(folder, key)
        path = _build(records, config, Path(folder), key, workers, quiet, earlier)
    except OSError as error:
        raise CacheError(
            f"{Path(folder) / key}: the cache cannot be written ({error.strerror or error}); "
            f"name a writable folder with --cache"
        ) from error
    cache = _load(path, key, records)
    _open_shards(cache)
    return cache


def cache_key(records: Sequence[Record], config: SignalConfig) -> str:
    """Hash of what the recordings are called and how they are preprocessed."""
    digest = hashlib.sha256(json.dumps([MAGIC, VERSION, config.to_dict()], sort_keys=True).encode())
    for record in records:
        digest.update(record.name.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()[:24]


def is_current(cache: SignalCache, records: Sequence[Record]) -> bool:
    """Whether every file of the recordings in the cache is as it was when it was read."""
    record_of = {record.name: record for record in records}
    for name, layout, stamp in zip(cache.names, cache.layout.tolist(), cache.stamps):
        record = record_of[name]
        if file_stamp(laid_out(record.path, cache.layouts[layout]), record.facts) != stamp.tobytes():
            return False
    return True


def _candidates(folder: str | os.PathLike, key: str) -> list[Path]:
    """Folders of caches with this key, those with the fewest skipped recordings first, and of these the newest."""
    return sorted(Path(folder).glob(f"{key}-*"), key=_rank)


def _rank(path: Path) -> tuple[float, float]:
    """(number of skipped recordings, time with a minus sign) of a cache, by its meta.json; infinite without one."""
    try:
        return float(_read_meta(path)["n_skipped"]), -(path / "meta.json").stat().st_mtime
    except (CacheError, OSError, LookupError, TypeError, ValueError):
        return float("inf"), 0.0


def _remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process may be doing the same
        if path.is_symlink() or not path.is_dir():
            path.unlink()
        else:
            shutil.rmtree(path)


def _still_skipped(cache: SignalCache, records: Sequence[Record], config: SignalConfig) -> list[dict] | None:
    """Rows of the skipped recordings as they are today; or None if one of them can be read."""
    skipped = {row["record"] for row in cache.skipped_rows}
    rows = []
    for record in records:
        if record.name not in skipped:
            continue
        try:
            read_input(record, config)
        except RecordError as error:
            rows.append(skipped_row(record, error))
        else:
            return None
    return rows


def _read_meta(path: Path) -> dict:
    """Content of meta.json."""
    try:
        with open(path / "meta.json", "rb", opener=open_regular) as file:
            meta = json.loads(file.read(MAX_META))
    except (OSError, ValueError, RecursionError):
        raise CacheError("it is not there or half-written") from None
    if not isinstance(meta, dict):
        raise CacheError("it is not a cache of this format")
    return meta


def _load(path: Path, key: str, records: Sequence[Record]) -> SignalCache:
    """SignalCache at `path`, its shards still closed. Raises CacheError with the reason if it cannot be trusted."""
    meta = _read_meta(path)
    if (meta.get("magic"), meta.get("version"), meta.get("key")) != (MAGIC, VERSION, key):
        raise CacheError("it is not a cache of this format")
    try:
        with open(path / "index.npz", "rb", opener=open_regular) as file:
            index, texts = _read_index(file)
        _check_index(index, texts, [record.name for record in records])
    except CacheError:
        raise
    except Exception as error:  # there is no end to what numpy, zipfile and json may raise on a foreign file
        raise CacheError(f"its index cannot be read ({error!r:.200})") from None
    return SignalCache(
        path=path,
        shards=Shards(path, index["first"], index["offsets"], index["crc"]),
        offsets=index["offsets"],
        names=texts["names"],
        dx=[tuple(codes) for codes in texts["dx"]],
        covariates=index["covariates"],
        skipped_rows=texts["skipped"],
        warnings=[tuple(row) for row in texts["warnings"]],
        hash_bytes=index["hashes"],
        constant=index["constant"],
        layouts=texts["layouts"],
        layout=index["layout"],
        stamps=index["stamps"],
    )


def _open_shards(cache: SignalCache) -> None:
    """Compare sizes and, of a small cache, checksums. Raises CacheError if they differ."""
    try:
        cache.shards.check_sizes()
        if cache.n_bytes <= SMALL:
            cache.shards.open_all()
    except (ShardError, OSError) as error:
        raise CacheError(str(error)) from None


def _read_index(file: BinaryIO) -> tuple[dict[str, np.ndarray], Any]:
    """Arrays and texts of an open index.npz; no more is unpacked than it has bytes."""
    size = os.fstat(file.fileno()).st_size
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > size or size > MAX_INDEX:
        raise CacheError(f"its index of {size} bytes unpacks to {unpacked}")
    file.seek(0)
    with np.load(file, allow_pickle=False) as index:
        arrays = {name: index[name] for name in ("first", "offsets", *ARRAYS)}
        return arrays, json.loads(index["texts"].tobytes())


def _check_index(index: dict[str, np.ndarray], texts: Any, names: Sequence[str]) -> None:
    """Raises CacheError, or whatever a foreign index leads to, unless this is what `_index` makes of recordings with
    these names.
    """
    n = len(texts["names"])
    _check_steps(index, "first", last=n)
    _check_array(index, "offsets", (n + 1,), np.int64)
    _check_steps(index, "offsets")
    if (index["offsets"] % 12).any():
        raise CacheError("its index does not fit: offsets within a recording")
    for name, (shape, dtype) in ARRAYS.items():
        _check_array(index, name, (n, *shape), dtype)
    if not np.isfinite(index["covariates"]).all():
        raise CacheError("its index does not fit: covariates that are not finite")
    _check_texts(texts, n)
    if not ((index["layout"] >= 0) & (index["layout"] < len(texts["layouts"]))).all():
        raise CacheError("its index does not fit: layouts that are not there")
    if sorted(texts["names"] + [row["record"] for row in texts["skipped"]]) != sorted(names):
        raise CacheError("its index does not fit: names of other recordings")


def _check_array(index: dict[str, np.ndarray], name: str, shape: tuple[int, ...], dtype: Any) -> None:
    if index[name].shape != shape or index[name].dtype != dtype:
        raise CacheError(f"its index does not fit: {name} of another form")


def _check_steps(index: dict[str, np.ndarray], name: str, last: int | None = None) -> None:
    """Whole numbers that begin with 0 and never fall; they end with `last`, if that is given."""
    steps = index[name]
    if steps.ndim != 1 or steps.dtype != np.int64 or not len(steps):
        raise CacheError(f"its index does not fit: {name} of another form")
    if steps[0] != 0 or (np.diff(steps) < 0).any() or last not in (None, steps[-1]):
        raise CacheError(f"its index does not fit: {name} in disorder")


def _check_texts(texts: dict, n: int) -> None:
    if len(texts["dx"]) != n or not _hold_texts(texts["dx"]):
        raise CacheError("its index does not fit: diagnoses that are not a list of texts by recording")
    if not _hold_texts(texts["layouts"]) or any("" in layout for layout in texts["layouts"]):
        raise CacheError("its index does not fit: layouts that are not lists of names")
    if any(list(row) != ["record", "stage", "reason"] for row in texts["skipped"]):
        raise CacheError("its index does not fit: skipped recordings without a reason")
    if not _hold_texts([list(row.values()) for row in texts["skipped"]]):
        raise CacheError("its index does not fit: skipped recordings that are not texts")
    if any(len(row) != 2 for row in texts["warnings"]) or not _hold_texts(texts["warnings"]):
        raise CacheError("its index does not fit: warnings that are not pairs of texts")


def _hold_texts(rows: Any) -> bool:
    """Whether this is a list of lists of str."""
    return type(rows) is list and all(type(row) is list and all(type(text) is str for text in row) for row in rows)


def _remove_abandoned(folder: str | os.PathLike, key: str) -> None:
    """Clear away what builders of this cache left that were killed; one that is still at work holds the lock. A
    folder without shards is left alone, for its builder may be about to lock it.
    """
    for partial in {shard.parent for shard in Path(folder).glob(f"{key}.partial-*/signals_*")}:
        with locked(partial) as abandoned:
            if abandoned:
                shutil.rmtree(partial, ignore_errors=True)


def _build(
    records: Sequence[Record],
    config: SignalConfig,
    folder: Path,
    key: str,
    workers: int,
    quiet: bool,
    earlier: SignalCache | None,
) -> Path:
    """Write the cache, from an earlier one what has not changed; -> its folder."""
    # A process number would not be unique where containers share a folder.
    partial = folder / f"{key}.partial-{secrets.token_hex(8)}"
    partial.mkdir(parents=True)
    try:
        with locked(partial):
            kept = {} if earlier is None else _kept(earlier)
            index, texts = _index(write_shards(records, config, partial, workers, quiet, kept))
            if not texts["names"]:
                raise NothingReadable(texts["skipped"], records)
            with written(partial / "index.npz") as out:
                np.savez(out, **index, texts=np.frombuffer(json.dumps(texts).encode(), np.uint8))
            meta = {
                "magic": MAGIC,
                "version": VERSION,
                "key": key,
                "n_records": len(texts["names"]),
                "n_skipped": len(texts["skipped"]),
                "signal": config.to_dict(),
            }
            with written(partial / "meta.json") as out:
                out.write(json.dumps(meta, indent=1).encode())
            path = folder / f"{key}-{_content(index, texts)}"
            try:
                partial.rename(path)
            except OSError:
                if not (path / "meta.json").exists():  # or else another process was faster
                    raise
            return path
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _kept(cache: SignalCache) -> dict[str, Kept]:
    """{name: recording} of a cache, for the next one."""
    warnings = defaultdict(list)
    for name, warning in cache.warnings:
        warnings[name].append(warning)
    kept = {}
    for i, name in enumerate(cache.names):
        shard = cache.shards.shard_of(i)
        kept[name] = Kept(
            file=shard_file(cache.path, shard),
            start=2 * int(cache.offsets[i] - cache.offsets[cache.shards.first[shard]]),
            size=int(cache.offsets[i + 1] - cache.offsets[i]),
            stamp=cache.stamps[i].tobytes(),
            crc=int(cache.shards.crc[i]),
            signal_hash=cache.hash_bytes[i].tobytes(),
            constant=bool(cache.constant[i]),
            covariates=cache.covariates[i],
            dx=cache.dx[i],
            warnings=warnings[name],
        )
    return kept


def _content(index: dict[str, np.ndarray], texts: dict) -> str:
    """Hash of the files that were read and of the recordings that were not."""
    skipped = json.dumps([row["record"] for row in texts["skipped"]])
    return hashlib.sha256(index["stamps"].tobytes() + skipped.encode()).hexdigest()[:16]


def _index(parts: list[dict]) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """Arrays and texts of the index, of what the shards hold."""
    index = {
        "first": np.cumsum([0] + [len(part["names"]) for part in parts], dtype=np.int64),
        "offsets": np.cumsum([0] + [size for part in parts for size in part["sizes"]], dtype=np.int64),
    }
    layouts = {}
    for part in parts:
        numbers = [layouts.setdefault(layout, len(layouts)) for layout in part["layouts"]]
        part["layout"] = np.array(numbers, np.int32)
    for name, (shape, dtype) in ARRAYS.items():
        index[name] = np.concatenate([np.empty((0, *shape), dtype)] + [part[name] for part in parts])
    texts = {name: [value for part in parts for value in part[name]] for name in TEXTS}
    return index, {**texts, "layouts": [list(layout) for layout in layouts]}


def _most_frequent_faults(skipped_rows: list[dict], records: Sequence[Record]) -> str:
    """The most frequent reasons with their counts. A reason is the same for two recordings if it differs in their names
    and folders only.
    """
    record_of = {record.name: record for record in records}
    faults = Counter(_without_name(row["reason"], record_of.get(row["record"])) for row in skipped_rows)
    shown = [f"{n} times '{fault}'" for fault, n in faults.most_common(N_REASONS)]
    further = len(faults) - len(shown)
    return ", ".join(shown) + (f", and {further} other reasons" if further > 0 else "")


def _without_name(reason: str, record: Record | None) -> str:
    if record is not None:
        folder = printable(os.path.join(os.path.dirname(record.path), ""))
        reason = re.sub(rf"(?<!\w){re.escape(record.record_id)}(?!\w)", "ID", reason.replace(folder, ""))
    return reason[:MAX_REASON]
