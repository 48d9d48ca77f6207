"""Preprocessed signals of a whole folder in one int16 memory map, in microvolts.

The first run over a folder reads, resamples and stores every recording; later runs start at once. A cache lives in
`CACHE_FOLDER/KEY/`, where KEY is a hash of the format version, the signal configuration and every file's name, size and
time of change: a changed folder or another configuration has another key, so a stale cache is never read.

    signals.i16   all recordings one after another, each (12, T) int16 in microvolts, C order
    index.npz     offsets, CRC-32 and context (age, sex, rhythm) of every recording; names, diagnoses, skipped recordings
                  and warnings as JSON
    meta.json     magic word, version, key and sizes; written last, so its absence means a half-written cache
"""
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data.inputs import N_CONTEXT, chunks, context, read_input
from data.locks import locked
from data.records import RecordError

MAGIC, VERSION = "ecg-signal-cache", 3
CHUNK = 512  # recordings in flight while building
TEXTS = ("names", "dx", "skipped", "warnings")  # kept as JSON: an array is as wide as its longest text
DAMAGE = (OSError, ValueError, LookupError, TypeError, EOFError, MemoryError, zlib.error, zipfile.BadZipFile)


class CacheError(RuntimeError):
    """The cache folder cannot be used; the message says which file and why."""


@dataclass(frozen=True)
class SignalCache:
    """Signals and header facts of R readable recordings. `signal(i)` is a (12, T_i) int16 view in microvolts."""
    signals: np.ndarray    # (sum of 12 * T_i,) int16, memory-mapped
    offsets: np.ndarray    # (R + 1,) int64, in elements of `signals`
    names: list            # R strings 'source/record_id'
    dx: list               # R tuples of diagnosis codes
    context: np.ndarray    # (R, N_CONTEXT) float32, see data.inputs.context
    skipped_rows: list     # of recordings that could not be read: {"record": name, "stage": ..., "reason": ...}
    warnings: list         # (name, remark) of readable but suspicious recordings

    def __len__(self):
        return len(self.names)

    def signal(self, i):
        return self.signals[self.offsets[i]:self.offsets[i + 1]].reshape(12, -1)  # (12, T)

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
    path = Path(folder) / key
    try:
        return _load(path, key)
    except CacheError as error:
        reason = error
    try:
        if path.exists():
            print(f"Cache {path} is rebuilt: {reason}")
            shutil.rmtree(path)
        _remove_abandoned(path)
        _build(records, config, path, key, workers, quiet)
    except OSError as error:
        raise CacheError(f"{path}: the cache cannot be written ({error.strerror}); name a writable folder with --cache") from error
    return _load(path, key)


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


def _load(path, key):
    """SignalCache at `path`. Raises CacheError with the reason if it cannot be trusted."""
    try:
        meta = json.loads((path / "meta.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise CacheError("it is not there or half-written") from None
    if not isinstance(meta, dict) or (meta.get("magic"), meta.get("version"), meta.get("key")) != (MAGIC, VERSION, key):
        raise CacheError("it is not a cache of this format")
    try:
        with np.load(path / "index.npz", allow_pickle=False) as index:
            offsets, crc, context, texts = index["offsets"], index["crc"], index["context"], json.loads(index["texts"].tobytes())
        file = path / "signals.i16"
        signals = np.memmap(file, dtype="<i2", mode="r") if file.stat().st_size else np.zeros(0, "<i2")
        names, dx, skipped, warnings = (texts[name] for name in TEXTS)
        sizes = np.diff(offsets)
        agree = (len(offsets) - 1 == len(crc) == len(names) == len(dx) == meta["n_records"]
                 and context.dtype == np.float32 and context.shape == (len(crc), N_CONTEXT)
                 and offsets.dtype == np.int64 and offsets[0] == 0 and offsets[-1] == len(signals)
                 and (sizes >= 0).all() and not (sizes % 12).any())
    except DAMAGE as error:
        raise CacheError(f"its index cannot be read ({error})") from None
    if not agree:
        raise CacheError("its sizes do not agree")
    with open(file, "rb") as stored:  # read rather than mapped: mapped pages would count as this process's memory
        for i, size in enumerate(sizes.tolist()):
            if zlib.crc32(stored.read(2 * size)) != crc[i]:
                raise CacheError(f"recording {i} has another checksum than when it was written")
    return SignalCache(signals, offsets, names, [tuple(codes) for codes in dx], context, skipped,
                       [tuple(row) for row in warnings])


def _remove_abandoned(path):
    """Clear away what builders of this cache left that were killed; one that is still at work holds the lock."""
    for partial in path.parent.glob(f"{path.name}.partial-*"):
        with locked(partial) as abandoned:
            if abandoned:
                shutil.rmtree(partial, ignore_errors=True)


def _build(records, config, path, key, workers, quiet):
    """Read all recordings in parallel threads (reading and resampling release the interpreter lock) and write the cache."""
    partial = path.with_name(f"{key}.partial-{os.getpid()}")
    partial.mkdir(parents=True)
    try:
        with locked(partial):
            index = _write_signals(records, config, partial / "signals.i16", workers, quiet)
            np.savez(partial / "index.npz", **index)
            meta = {"magic": MAGIC, "version": VERSION, "key": key, "n_records": len(index["crc"]), "signal": config.to_dict()}
            (partial / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            try:
                partial.rename(path)
            except OSError:
                if not (path / "meta.json").exists():  # or else another process was faster
                    raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _read(record, config):
    """(signal, context, Header, warnings) of a Record, or the RecordError that reading it raised."""
    try:
        signal, header, warnings = read_input(record, config)
    except RecordError as error:
        return error
    return signal, context(signal, config.sample_freq, header.age, header.sex), header, warnings


def _write_signals(records, config, file, workers, quiet):
    """Write the signals one after another; -> arrays of the index."""
    contexts, sizes, crc = [], [], []
    names, dx, skipped, warnings = lists = [], [], [], []
    with open(file, "wb") as out, ThreadPoolExecutor(max(1, workers)) as pool, \
            tqdm(total=len(records), desc="Reading recordings", unit="rec", disable=quiet) as bar:
        for chunk in chunks(records, CHUNK):
            for record, result in zip(chunk, pool.map(lambda r: _read(r, config), chunk)):
                bar.update()
                if isinstance(result, RecordError):
                    skipped.append({"record": record.name, "stage": result.stage, "reason": str(result)})
                    continue
                signal, facts, header, remarks = result
                data = signal.astype("<i2").tobytes()
                out.write(data)
                names.append(record.name), dx.append(header.dx)
                contexts.append(facts), sizes.append(signal.size), crc.append(zlib.crc32(data))
                warnings += [(record.name, remark) for remark in remarks]
        out.flush()
        os.fsync(out.fileno())
    texts = json.dumps(dict(zip(TEXTS, lists))).encode()
    return {"offsets": np.cumsum([0] + sizes, dtype=np.int64), "crc": np.array(crc, np.uint32), "context": np.array(contexts, np.float32).reshape(-1, N_CONTEXT),
            "texts": np.frombuffer(texts, np.uint8)}
