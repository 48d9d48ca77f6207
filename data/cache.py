"""Preprocessed signals of a whole folder in one int16 memory map, in microvolts.

The first run over a folder reads, resamples and stores every recording; later runs start at once. A cache lives in
`CACHE_FOLDER/KEY/`, where KEY is a hash of the format version, the signal configuration and every file's name, size and
time of change: a changed folder or another configuration has another key, so a stale cache is never read.

    signals.i16   all recordings one after another, each (12, T) int16 in microvolts, C order
    index.npz     names, offsets, CRC-32 of every recording, diagnoses, age, sex, skipped recordings and warnings
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

from data.inputs import to_microvolts
from data.preprocess import Quality, preprocess
from data.records import RecordError, read_record

MAGIC, VERSION = "ecg-signal-cache", 1
CHUNK = 512  # recordings in flight while building: bounds the memory


class CacheError(RuntimeError):
    """The cache folder cannot be used; the message says which file and why."""


@dataclass(frozen=True)
class SignalCache:
    """Signals and header facts of R readable recordings. `signal(i)` is a (12, T_i) int16 view in microvolts."""
    signals: np.ndarray    # (sum of 12 * T_i,) int16, memory-mapped
    offsets: np.ndarray    # (R + 1,) int64, in elements of `signals`
    names: list            # R strings 'source/record_id'
    dx: list               # R tuples of diagnosis codes
    age: np.ndarray        # (R,) float32 years, NaN where unknown
    sex: np.ndarray        # (R,) str 'Male', 'Female' or ''
    skipped: list          # (name, reason) of recordings that could not be read
    warnings: list         # (name, remark) of readable but suspicious recordings

    def __len__(self):
        return len(self.names)

    def signal(self, i):
        return self.signals[self.offsets[i]:self.offsets[i + 1]].reshape(12, -1)  # (12, T)

    @property
    def sources(self):
        """Folder of each recording relative to the input folder ('' at its top)."""
        return [name.rpartition("/")[0] for name in self.names]


def open_cache(records, config, folder, workers=2, quiet=False):
    """SignalCache of `records` (from `find_records`) preprocessed by `config` (SignalConfig); built if it is not there."""
    key = cache_key(records, config)
    path = Path(folder) / key
    reason = _fault(path, key)
    if reason is not None:
        if path.exists():
            print(f"Cache {path} is rebuilt: {reason}")
            shutil.rmtree(path)
        _build(records, config, path, key, workers, quiet)
    return _load(path)


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


def _fault(path, key):
    """Why the cache at `path` cannot be trusted, or None if it can."""
    try:
        meta = json.loads((path / "meta.json").read_text())
    except (OSError, ValueError):
        return "it is not there or half-written"
    if not isinstance(meta, dict) or (meta.get("magic"), meta.get("version"), meta.get("key")) != (MAGIC, VERSION, key):
        return "it is not a cache of this format"
    try:
        with np.load(path / "index.npz", allow_pickle=False) as index:
            offsets, crc = index["offsets"], index["crc"]
        signals = _map(path)
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        return f"its index cannot be read ({error})"
    if len(offsets) != meta.get("n_records", -2) + 1 or len(signals) != offsets[-1]:
        return "its sizes do not agree"
    for i in range(len(crc)):
        if zlib.crc32(signals[offsets[i]:offsets[i + 1]]) != crc[i]:
            return f"recording {i} has another checksum than when it was written"
    return None


def _map(path):
    file = path / "signals.i16"
    return np.memmap(file, dtype="<i2", mode="r") if file.stat().st_size else np.zeros(0, "<i2")


def _load(path):
    with np.load(path / "index.npz", allow_pickle=False) as index:
        facts = {name: index[name] for name in index.files}
    return SignalCache(
        signals=_map(path), offsets=facts["offsets"], names=facts["names"].tolist(),
        dx=[tuple(filter(None, codes.split(","))) for codes in facts["dx"].tolist()], age=facts["age"], sex=facts["sex"],
        skipped=[tuple(row) for row in facts["skipped"].tolist()],
        warnings=[tuple(row) for row in facts["warnings"].tolist()])


def _read_one(record, config):
    """(signal int16 (12, T), header, remarks) of one recording, or the RecordError that it raised."""
    quality, remarks = Quality(), []
    try:
        adc, header = read_record(record, remarks)
        signal = to_microvolts(preprocess(adc, header, config, quality))
    except RecordError as error:
        return error
    counts = {"invalid samples, interpolated": quality.n_nan, "saturated samples": quality.n_saturated}
    return signal, header, remarks + quality.warnings + [f"{n} {what}" for what, n in counts.items() if n]


def _build(records, config, path, key, workers, quiet):
    """Read all recordings in parallel threads (reading and resampling release the interpreter lock) and write the cache."""
    partial = path.with_name(f"{key}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise CacheError(f"{partial}: the cache cannot be written ({error.strerror}); name a writable folder with --cache") from error
    try:
        index = _write_signals(records, config, partial / "signals.i16", workers, quiet)
        np.savez(partial / "index.npz", **index)
        meta = {"magic": MAGIC, "version": VERSION, "key": key, "n_records": len(index["names"]), "signal": config.to_dict()}
        (partial / "meta.json").write_text(json.dumps(meta, indent=1))
        try:
            partial.rename(path)
        except OSError:
            if _fault(path, key) is not None:  # not simply another process that was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_signals(records, config, file, workers, quiet):
    names, dx, age, sex, sizes, crc, skipped, warnings = [], [], [], [], [], [], [], []
    with open(file, "wb") as out, ThreadPoolExecutor(max(1, workers)) as pool, \
            tqdm(total=len(records), desc="Reading recordings", unit="rec", disable=quiet) as bar:
        for start in range(0, len(records), CHUNK):
            chunk = records[start:start + CHUNK]
            for record, result in zip(chunk, pool.map(lambda r: _read_one(r, config), chunk)):
                bar.update()
                if isinstance(result, RecordError):
                    skipped.append((record.name, str(result)))
                    continue
                signal, header, remarks = result
                data = signal.astype("<i2").tobytes()
                out.write(data)
                names.append(record.name), dx.append(",".join(header.dx))
                age.append(header.age), sex.append(header.sex or "")
                sizes.append(signal.size), crc.append(zlib.crc32(data))
                warnings += [(record.name, remark) for remark in remarks]
        out.flush()
        os.fsync(out.fileno())
    return {"names": np.array(names, str), "dx": np.array(dx, str), "age": np.array(age, np.float32),
            "sex": np.array(sex, str), "offsets": np.cumsum([0] + sizes, dtype=np.int64), "crc": np.array(crc, np.uint32),
            "skipped": np.array(skipped, str).reshape(-1, 2), "warnings": np.array(warnings, str).reshape(-1, 2)}
