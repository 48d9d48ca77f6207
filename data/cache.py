"""Preprocessed signals of a whole folder in int16 memory maps, in microvolts.

The first run over a folder reads, resamples and stores every recording; later runs start at once. A cache lies in
`CACHE_FOLDER/KEY-CONTENT/`. KEY is a hash of the format version, the signal configuration and the recordings' names.
CONTENT is one of the size and time of change of every file that decides what a recording holds (those that its header
names and its segments' ones included; a link counts as the file it leads to), and of which recordings were skipped.

    signals_00000.i16 ...   shards: some recordings each, one after another, each (n_leads, T) int16 in microvolts
    index.npz, meta.json    what is known of the recordings, see data.cache_index

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
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from data.cache_index import MAGIC, VERSION, CacheError, content_hash, index_of, load_index, read_meta, write_index
from data.headers import printable
from data.inputs import read_input
from data.locks import locked
from data.preprocess import SignalConfig
from data.records import Record, RecordError
from data.shards import Entry, Kept, ShardError, Shards, file_stamp, laid_out, shard_file, skipped_row, write_shards

SMALL = 2**31  # bytes of signals that are compared with their checksums at once, which takes a second or two
N_REASONS = 3  # that are shown where no recording can be read
MAX_REASON = 200  # characters of each


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
    n_leads: int  # of every signal
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
        """(n_leads, T_i) int16 view in microvolts. A CacheError if its file was damaged; the cache is then built anew
        the next time.
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
                cache = _load(path, key, records, config)
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
    cache = _load(path, key, records, config)
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
        return float(read_meta(path)["n_skipped"]), -(path / "meta.json").stat().st_mtime
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


def _load(path: Path, key: str, records: Sequence[Record], config: SignalConfig) -> SignalCache:
    """SignalCache at `path`, its shards still closed. Raises CacheError with the reason if it cannot be trusted."""
    n_leads = len(config.leads)
    index, texts = load_index(path, key, [record.name for record in records], n_leads)
    return SignalCache(
        path=path,
        n_leads=n_leads,
        shards=Shards(path, n_leads, index["first"], index["offsets"], index["crc"]),
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
            index, texts = index_of(write_shards(records, config, partial, workers, quiet, kept))
            if not texts["names"]:
                raise NothingReadable(texts["skipped"], records)
            write_index(partial, key, config, index, texts)
            path = folder / f"{key}-{content_hash(index, texts)}"
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
        entry = Entry(
            crc=int(cache.shards.crc[i]),
            signal_hash=cache.hash_bytes[i].tobytes(),
            constant=bool(cache.constant[i]),
            covariates=cache.covariates[i],
            dx=cache.dx[i],
            warnings=warnings[name],
        )
        kept[name] = Kept(
            file=shard_file(cache.path, shard),
            start=2 * int(cache.offsets[i] - cache.offsets[cache.shards.first[shard]]),
            size=int(cache.offsets[i + 1] - cache.offsets[i]),
            stamp=cache.stamps[i].tobytes(),
            entry=entry,
        )
    return kept


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
