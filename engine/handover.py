"""From pre-training to fine-tuning: what `train.py --folder RUN` takes over when RUN holds a pre-trained encoder.

    pretrain_config.json       format, signal, encoder, head, training (flags), data, versions, git commit
    pretrain_model.pth         {"encoder": state dict, "head": state dict} of the best epoch
    pretrain_train_ids.txt     recordings that the encoder was trained on
    pretrain_valid_ids.txt     recordings that it was validated on
    pretrain_recordings.csv    the same with a hash of what they contain, for they may be found under other names

The first two files are enough: without the others nothing is known of the split.
"""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.cache import SignalCache
from data.earlier_split import rows_named, rows_with_hash, split_like
from data.files import open_regular
from data.preprocess import SignalConfig
from data.splits import SPLIT_FLAGS
from engine.checks import check_members
from engine.run_folder import FORMATS, PRETRAIN, VERSION, RunError, RunFolder
from engine.trained_run import load_strictly, provenance
from models import build_encoder

# Sizes of an encoder that its weights do not depend on, or that no flag sets.
MAY_DIFFER = ("bidirectional", "dropout", "n_leads")
FINE_TUNING_LR = 0.002  # five times that, as for the xresnet from scratch, forgets what was learned before
# What fine-tuning does instead where no flag says otherwise, by encoder. A pre-trained xresnet does not forget at the
# rate of one from scratch, but within 60 epochs it learns the training recordings by heart: fewer epochs and more
# dropout were better, the encoder at the full rate. See docs/pretraining.md.
FINE_TUNING = {
    "xresnet": {"lr": 0.01, "encoder_lr_factor": 1.0, "epochs": 50, "dropout": 0.3, "head_dropout": 0.5},
}


def make_pretrain_config(signal: SignalConfig, encoder: dict, head: dict, training: dict, data: dict) -> dict:
    """Content of pretrain_config.json.

    Args:
        signal: the data contract.
        encoder: config, as models.build_encoder takes it.
        head: {"k_steps_ahead", "scale"} of a model that looks ahead, {"scale", "n_summary"} of one that
            predicts hidden samples.
        training: the flags.
        data: facts of the recordings.
    """
    return {
        "format": FORMATS[PRETRAIN][0],
        "version": VERSION,
        "signal": signal.to_dict(),
        "encoder": encoder,
        "head": head,
        "training": training,
        "data": data,
        **provenance(),
    }


@dataclass(frozen=True)
class Pretrained:
    """A pre-trained encoder and everything that must stay as it was."""

    run: RunFolder
    signal: SignalConfig
    encoder: dict  # encoder config, as models.build_encoder takes it
    state: dict  # the encoder's state dict
    settings: dict  # flags of the pre-training
    recordings: dict[str, list[tuple[str, str | None]]]  # {"train" or "valid": (name, hash if known)}; may be empty

    def apply(self, args: Namespace) -> None:
        """Set the flags that pre-training decides: encoder, its sizes, sample_freq, leads; and those of FINE_TUNING
        that are not given. Raises RunError for a flag of the command line that contradicts. --valid_split 0 never does:
        where nothing validates, nothing that validates was pre-trained on.
        """
        decided = {"sample_freq": self.signal.sample_freq, "leads": list(self.signal.leads)}
        decided |= {name: value for name, value in self.encoder.items() if name not in MAY_DIFFER}
        split = {name: self.settings[name] for name in SPLIT_FLAGS if name in self.settings}
        if args.valid_split == 0:
            split = {}
        refuse_others(args, {**decided, **split}, f"the pre-training in {self.run / 'config.json'}", "--folder")
        for name, value in decided.items():
            setattr(args, name, value)
        args.folder = str(self.run.path)  # without the slash that a shell adds, which would ask for a new folder inside
        usual = {"lr": FINE_TUNING_LR}
        if "dropout" in self.encoder:
            usual["dropout"] = self.encoder["dropout"]
        usual |= FINE_TUNING.get(self.encoder["encoder"], {})
        for name, value in usual.items():
            if getattr(args, name, None) is None:
                setattr(args, name, value)

    def load_into(self, encoder) -> None:
        """Load the weights, all of them and no others. Raises RunError."""
        load_strictly(encoder, self.state, self.run / "model.pth")

    def split(
        self, cache: SignalCache, patients: np.ndarray, train: np.ndarray, valid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Move recordings to the side that they, or their patients, had in pre-training.

        Args:
            cache: the recordings.
            patients: one for each.
            train, valid: rows, as the flags alone would split them.

        Returns:
            (train, valid) rows.

        Raises:
            RunError: none of the pre-training's recordings is found, a patient was on both sides, or a side is empty.
        """
        if not len(valid):
            return train, valid
        if not self.recordings:
            print(f"{self.run.path} does not say which recordings it was pre-trained on: some may validate now")
            return train, valid
        try:
            was_train = _found(self.recordings["train"], cache)
            was_valid = _found(self.recordings["valid"], cache)
            if not (was_train | was_valid).any():
                raise ValueError("none of its recordings is found among the data")
            return split_like(was_train, was_valid, patients, train, valid)
        except ValueError as error:
            raise RunError(f"the split of the pre-training in {self.run.path}: {error}") from error

    def warn_of_test(self, cache: SignalCache, test: np.ndarray) -> None:
        """Say if some of the recordings that are kept out were seen in pre-training, without their labels."""
        listed = self.recordings.get("train", []) + self.recordings.get("valid", [])
        if len(test) and listed and (n_seen := int(_found(listed, cache)[test].sum())):
            print(f"{n_seen} of the {len(test)} test recordings were seen in pre-training: give --test_fold to it too")


def refuse_others(args: Namespace, decided: dict, source: str, flag: str) -> None:
    """Refuse flags that were given but contradict what is taken over.

    Args:
        args: the flags; `explicit` names those that were given.
        decided: {flag: the value that it must have}.
        source: where that comes from, for the message.
        flag: the one that names this source.

    Raises:
        RunError: a flag contradicts.
    """
    for name, value in decided.items():
        if name in args.explicit and getattr(args, name) != value:
            raise RunError(
                f"{_as_typed(name, getattr(args, name))} contradicts {source}, which has {_words(value)}: leave the "
                f"flag out, or name another {flag}"
            )


def _as_typed(name, value):
    """A flag as it stands on a command line."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {_words(value)}"


def _words(value):
    """The value of a flag as it is typed."""
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _found(listed: list[tuple[str, str | None]], cache: SignalCache) -> np.ndarray:
    """(R,) bool, the recordings of the cache that are listed: by what they contain where that is known, else by
    name.
    """
    hashes = {digest for _, digest in listed if digest}
    if hashes:
        return rows_with_hash(cache.hashes, cache.constant, hashes)
    return rows_named(cache.names, [name for name, _ in listed])


def read_pretrained(folder: str | None) -> Pretrained | None:
    """The Pretrained of a run folder, or None if it does not hold a pretrain_config.json (or is None). Raises RunError
    naming the file and the fault.
    """
    if folder is None or not Path(folder, "pretrain_config.json").exists():
        return None
    run = RunFolder(folder, PRETRAIN)
    config = run.read_config()
    content = run.load("model.pth")
    try:
        signal = SignalConfig.from_dict(config["signal"])
        n_weights = check_members([{"model": config["encoder"], "seq_length": 1}], len(signal.leads))
        if 2 * n_weights > run.size("model.pth"):  # at two bytes each
            raise ValueError(f"{n_weights} weights are announced, for which the file is too small")
        pretrained = Pretrained(
            run=run,
            signal=signal,
            encoder=config["encoder"],
            state=content["encoder"],
            settings=dict(config["training"]),
            recordings=_read_recordings(run),
        )
        pretrained.load_into(build_encoder(config["encoder"]))  # now rather than after the data has been read
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(
            f"{run / 'config.json'} and pretrain_model.pth: {type(error).__name__}: {str(error)[:500]}"
        ) from error
    return pretrained


def _read_recordings(run: RunFolder) -> dict[str, list[tuple[str, str | None]]]:
    """{part: [(name, hash or None)]} from pretrain_recordings.csv, or from the ids files of earlier versions; {} if
    there are neither.
    """
    if os.path.lexists(run / "recordings.csv"):
        return _read_hashes(run)
    if not os.path.lexists(run / "train_ids.txt") and not os.path.lexists(run / "valid_ids.txt"):
        return {}
    return {part: [(name, None) for name in read_ids(run, part)] for part in ("train", "valid")}


def _read_hashes(run: RunFolder) -> dict[str, list[tuple[str, str | None]]]:
    file = run.regular("recordings.csv")
    found = {"train": [], "valid": []}
    try:
        with open(file, newline="", encoding="utf-8", opener=open_regular) as lines:
            for row in csv.DictReader(lines):
                found[row["part"]].append((row["record"], row["hash"]))
    except (OSError, KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise RunError(f"{file} is not a list of recordings: {error!r}"[:500]) from error
    return found


def read_ids(run: RunFolder, part: str) -> list[str]:
    """Names of the recordings that train ("train") or validate ("valid"), as the run has listed them. Raises
    RunError.
    """
    file = run.regular(f"{part}_ids.txt")
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RunError(f"{file} cannot be read: {error}") from error
