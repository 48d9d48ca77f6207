"""What is in a run folder: write it atomically, read it safely, resume from it.

config.json       every setting, the data contract (signal, classes, window), versions, git commit
model.pth         weights of the best epoch on validation, thresholds included
final_model.pth   weights after the last epoch
history.csv       one row per epoch
checkpoint.pth    everything needed to go on with an interrupted training, or to extend a finished one
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from data.headers import printable
from data.locks import locked

VERSION = 2  # of config.json and pretrain_config.json; version 1 named a model's covariates "context"
READABLE = (1, 2)
MAX_CONFIG = 2**24  # bytes
MAX_MESSAGE = 20_000  # characters of an error: it may quote a file
PRETRAIN = "pretrain_"  # how the files of a pre-training begin, which may share a folder with a training
_ALWAYS = {"format", "version", "signal", "training", "data", "versions", "git_commit"}
# What config.json calls itself and holds, by the prefix of the run's files.
FORMATS = {
    "": ("12ecg-run", _ALWAYS | {"classes", "decision", "members"}),
    PRETRAIN: ("12ecg-pretraining", _ALWAYS | {"encoder", "head"}),
}


# What torch.load and zipfile raise on files that they did not write; there is no common base class.
_FOREIGN_FILE = (
    zipfile.BadZipFile,
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    OverflowError,
    MemoryError,
)


class RunError(RuntimeError):
    """A run folder cannot be read or written; the message names the file and the fault."""

    def __init__(self, message: str):
        super().__init__(printable(message[:MAX_MESSAGE]))


def new_run_path(folder: str | os.PathLike | None = None) -> Path:
    """Folder of a new run: `folder` itself, or a time-stamped one inside it if it ends with a slash (or is not
    given).
    """
    folder = "./" if folder is None else str(folder)
    if folder.endswith(("/", os.sep)):
        return Path(folder) / datetime.now().strftime("output_%Y-%m-%d_%H_%M_%S_%f")
    return Path(folder)


class RunFolder:
    """One run on disk. Every file is written under a temporary name, flushed to disk and renamed.

    Names are those of the files without the run's prefix: `RunFolder(path, PRETRAIN) / "model.pth"` is
    path/pretrain_model.pth. Several processes that write different files of a folder at once each have a `writer` of
    their own, which their temporary names carry.
    """

    def __init__(self, path: str | os.PathLike, prefix: str = "", writer: str = ""):
        self.path = Path(path)
        self.prefix = prefix
        self.writer = writer

    def __truediv__(self, name: str) -> Path:
        return self.path / f"{self.prefix}{name}"

    def create(self) -> None:
        """Make the folder if it is not there."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{self.path}: the folder cannot be made: {error.strerror}") from error

    @contextlib.contextmanager
    def only_writer(self) -> Iterator[None]:
        """RunError if another process holds the folder in this way. The lock ends with the block, or with the
        process.
        """
        with locked(self.path) as free:
            if not free:
                raise RunError(f"{self.path} is in use: another process writes into it")
            yield

    def write_bytes(self, name: str, data: bytes) -> None:
        target = self / name
        checksum = zlib.crc32(os.fsencode(target.name))
        partial = (
            self.path / f".{checksum:08x}{self.writer}.partial"
        )  # a name of its own may be as long as names can be
        try:
            with open(partial, "wb", opener=_without_links) as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
            partial.replace(target)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise RunError(f"{target} cannot be written: {error.strerror}") from error

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        (self / name).unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> None:
        self.write_bytes(name, text.encode("utf-8"))

    def write_json(self, name: str, content: Any) -> None:
        self.write_text(name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")

    def write_rows(self, name: str, rows: list[dict], columns: list[str] | None = None) -> None:
        """CSV of a list of dictionaries with equal keys."""
        out = io.StringIO()
        writer = csv.DictWriter(out, columns or list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        self.write_text(name, out.getvalue())

    def save(self, name: str, content: Any) -> None:
        """torch.save of tensors and plain Python values."""
        buffer = io.BytesIO()
        torch.save(content, buffer)
        self.write_bytes(name, buffer.getvalue())

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return self.regular(name).stat().st_size

    def load(self, name: str) -> Any:
        """What `save` wrote; never executes code from the file. Raises RunError."""
        file = self.regular(name)
        try:
            with zipfile.ZipFile(file) as archive:  # unpacked, nothing may be larger than the file itself
                unpacked = sum(entry.file_size for entry in archive.infolist())
            if unpacked > file.stat().st_size:
                raise RunError(f"{file} is not a plain PyTorch checkpoint: it unpacks to {unpacked} bytes")
            return torch.load(file, map_location="cpu", weights_only=True)
        except RunError:
            raise
        except pickle.UnpicklingError as error:  # PyTorch's own text advises to run what is in the file
            raise RunError(
                f"{file} is damaged or not a plain PyTorch checkpoint: it holds other things than tensors and plain "
                "values"
            ) from error
        except _FOREIGN_FILE as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise RunError(f"{file} is damaged or not a plain PyTorch checkpoint: {reason}") from error

    def read_config(self) -> dict:
        """Contents of config.json (pretrain_config.json with that prefix), checked. Raises RunError."""
        return read_config_file(self.regular("config.json"), self.prefix)

    def regular(self, name: str) -> Path:
        """Path of a file to be read; RunError if it is none: a pipe would be waited for, a device read without end."""
        file = self / name
        if not file.is_file():
            raise RunError(f"{file} is {'not a regular file' if os.path.lexists(file) else 'missing'}")
        return file


class ReadOnlyRunFolder(RunFolder):
    """The same run folder as the other processes of a training see it: they read, and only the first one writes.
    Nor is anything put into bytes that would be thrown away: a checkpoint is the whole model.
    """

    def _nothing(self, *args, **kwargs):
        pass

    write_bytes = remove = write_text = write_json = write_rows = save = _nothing


def read_config_file(file: Path, prefix: str = "") -> dict:
    """Contents of a config.json, or with the prefix PRETRAIN of a pretrain_config.json, under any name. Checked are its
    format and version, and that no key is missing or unknown. Raises RunError.
    """
    form, keys = FORMATS[prefix]
    if not file.is_file():
        raise RunError(f"{file} is {'not a regular file' if os.path.lexists(file) else 'missing'}")
    try:
        if file.stat().st_size > MAX_CONFIG:
            raise RunError(f"{file} has more than {MAX_CONFIG} bytes")
        config = json.loads(file.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{file} is not readable JSON: {error}") from error
    if not isinstance(config, dict) or config.get("format") != form:
        raise RunError(f"{file} does not describe a run of this software (format {form!r})")
    if config.get("version") not in READABLE:
        found = str(config.get("version"))[:80]
        raise RunError(f"{file} has version {found}; this software reads versions 1 and 2")
    if set(config) != keys:
        missing = sorted(keys - set(config))
        unknown = sorted(set(config) - keys)
        raise RunError(f"{file}: missing keys {missing}, unknown keys {unknown}"[:500])
    return _upgraded(config)


def _upgraded(config):
    """A config.json of version 1 in the words of version 2."""
    members = config.get("members")
    if config["version"] == 1 and isinstance(members, list):
        for member in members:
            model = member.get("model") if isinstance(member, dict) else None
            if isinstance(model, dict) and "n_context" in model:
                model["n_covariates"] = model.pop("n_context")
    return {**config, "version": VERSION}


def _without_links(path, flags):
    """Opener of a file to be written that does not follow a link lying in its place."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _refuse_constant(text):
    raise ValueError(f"{text} is not JSON")
