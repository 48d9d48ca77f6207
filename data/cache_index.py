"""What a cache knows of its recordings beside their signals: index.npz and meta.json, written, read and checked.

index.npz   by recording: offset, CRC-32, hash of the signal, stamp of its files, which they are, and covariates
            (age, sex, rhythm); with which recordings the shards begin; names, diagnoses, skipped recordings and
            warnings as JSON
meta.json   magic word, version, key and sizes; written last, so its absence means a half-written cache
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data.covariates import N_COVARIATES
from data.files import open_regular, written
from data.preprocess import SignalConfig
from data.shards import HASH_BYTES, STAMP_BYTES

MAGIC = "ecg-signal-cache"
VERSION = 7
MAX_META = 2**20  # bytes
MAX_INDEX = 2**31  # bytes; that of a million recordings has a fifth of it

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


def index_of(parts: list[dict]) -> tuple[dict[str, np.ndarray], dict[str, list]]:
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


def content_hash(index: dict[str, np.ndarray], texts: dict) -> str:
    """Hash of the files that were read and of the recordings that were not."""
    skipped = json.dumps([row["record"] for row in texts["skipped"]])
    return hashlib.sha256(index["stamps"].tobytes() + skipped.encode()).hexdigest()[:16]


def write_index(
    folder: Path, key: str, config: SignalConfig, index: dict[str, np.ndarray], texts: dict[str, list]
) -> None:
    """Write index.npz, and meta.json after it.

    Args:
        folder: of the cache.
        key: of the cache.
        config: how the recordings were preprocessed.
        index, texts: from `index_of`.
    """
    with written(folder / "index.npz") as out:
        np.savez(out, **index, texts=np.frombuffer(json.dumps(texts).encode(), np.uint8))
    meta = {
        "magic": MAGIC,
        "version": VERSION,
        "key": key,
        "n_records": len(texts["names"]),
        "n_skipped": len(texts["skipped"]),
        "signal": config.to_dict(),
    }
    with written(folder / "meta.json") as out:
        out.write(json.dumps(meta, indent=1).encode())


def load_index(
    path: Path, key: str, names: Sequence[str], n_leads: int
) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """Arrays and texts of the index of a cache.

    Args:
        path: folder of the cache.
        key: that it must have.
        names: of the recordings that it must hold or have skipped.
        n_leads: of every recording.

    Raises:
        CacheError: it cannot be trusted; the message is the reason.
    """
    meta = read_meta(path)
    if (meta.get("magic"), meta.get("version"), meta.get("key")) != (MAGIC, VERSION, key):
        raise CacheError("it is not a cache of this format")
    try:
        with open(path / "index.npz", "rb", opener=open_regular) as file:
            index, texts = _read_index(file)
        _check_index(index, texts, names, n_leads)
    except CacheError:
        raise
    except Exception as error:  # there is no end to what numpy, zipfile and json may raise on a foreign file
        raise CacheError(f"its index cannot be read ({error!r:.200})") from None
    return index, texts


def read_meta(path: Path) -> dict:
    """Content of meta.json."""
    try:
        with open(path / "meta.json", "rb", opener=open_regular) as file:
            meta = json.loads(file.read(MAX_META))
    except (OSError, ValueError, RecursionError):
        raise CacheError("it is not there or half-written") from None
    if not isinstance(meta, dict):
        raise CacheError("it is not a cache of this format")
    return meta


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


def _check_index(index: dict[str, np.ndarray], texts: Any, names: Sequence[str], n_leads: int) -> None:
    """Raises CacheError, or whatever a foreign index leads to, unless this is what `index_of` makes of recordings with
    these names and so many leads.
    """
    n = len(texts["names"])
    _check_steps(index, "first", last=n)
    _check_array(index, "offsets", (n + 1,), np.int64)
    _check_steps(index, "offsets")
    if (index["offsets"] % n_leads).any():
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
