"""From pre-training to fine-tuning: what `train.py --folder RUN` takes over when RUN holds a pre-trained encoder.

pretrain_config.json   format, signal, encoder, head, training (flags), data, versions, git commit
pretrain_model.pth     {"encoder": state dict, "head": state dict} of the best epoch
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.preprocess import SignalConfig
from engine.checks import check_members
from engine.run_folder import VERSION, RunError, RunFolder, provenance
from models import CAUSAL_ENCODERS, build_encoder

FORMAT = "12ecg-pretraining"
KEYS = {"format", "version", "signal", "encoder", "head", "training", "data", "versions", "git_commit"}
MAY_DIFFER = (
    "bidirectional",
    "dropout",
    "n_leads",
)  # sizes of an encoder that its weights do not depend on, or that no flag sets
FINE_TUNING_LR = 0.002  # five times that, as for the xresnet from scratch, forgets: see the README
SPLIT = ("split", "valid_split", "valid_fold", "fold", "n_folds", "hold_out")


def make_pretrain_config(signal, encoder, head, training, data):
    """Content of pretrain_config.json: SignalConfig, encoder config, {"k_steps_ahead", "scale"}, flags and facts of
    the data.
    """
    return {
        "format": FORMAT,
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
    train_ids: list  # recordings 'source/record_id' that the encoder was trained on
    valid_ids: list  # and those that it was validated on

    def apply(self, args, given):
        """Set the flags that pre-training decides: encoder, its sizes, sample_freq; and the learning rate, if none is
        given. `given`, from engine.options.explicit_flags, are those on the command line: one that contradicts raises
        RunError.
        """
        decided = {
            "sample_freq": self.signal.sample_freq,
            **{k: v for k, v in self.encoder.items() if k not in MAY_DIFFER},
        }
        for name, value in {**decided, **{name: self.settings.get(name) for name in SPLIT}}.items():
            if name in given and getattr(args, name) != value:
                raise RunError(
                    f"--{name} {getattr(args, name)} contradicts the pre-training in {self.run / 'pretrain_config.json'}, "
                    f"which has {value}: leave the flag out, or name another --folder"
                )
        for name, value in decided.items():
            setattr(args, name, value)
        if "dropout" in self.encoder and args.dropout is None:
            args.dropout = self.encoder["dropout"]
        if "lr" not in given:
            args.lr = FINE_TUNING_LR

    def load_into(self, encoder):
        """Load the weights, all of them and no others."""
        try:
            encoder.load_state_dict(self.state, strict=True)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise RunError(
                f"{self.run / 'pretrain_model.pth'} does not fit pretrain_config.json: {str(error)[:500]}"
            ) from error
        if not all(torch.isfinite(tensor).all() for tensor in encoder.state_dict().values()):
            raise RunError(f"{self.run / 'pretrain_model.pth'} holds weights that are NaN or infinite")

    def split(self, names, patients, train, valid):
        """Move recordings of a split (rows `train` and `valid`) to the side that they, or their patients, had in
        pre-training. names and patients: one of each per recording. -> (train, valid). Raises RunError if a side is
        empty or leaking.
        """
        names, sides = np.asarray(names), np.zeros(len(names), bool)
        sides[valid] = True  # (R,) True: validation
        known = {
            True: set(patients[np.isin(names, self.valid_ids)]),
            False: set(patients[np.isin(names, self.train_ids)]),
        }
        leaking = known[True] & known[False]
        if leaking:
            raise RunError(
                f"patient {sorted(leaking)[0]} has recordings on both sides of the split in {self.run.path}: "
                f"pre-train with the same --metadata"
            )
        for side, group in known.items():
            sides[np.isin(patients, sorted(group))] = side
        rows = np.union1d(train, valid)
        train, valid = rows[~sides[rows]], rows[sides[rows]]
        if not len(train) or not len(valid):
            raise RunError(
                f"the split of {self.run.path} leaves {len(train)} recordings for training and {len(valid)} for validation"
            )
        return train, valid


def read_pretrained(folder):
    """The Pretrained of a run folder, or None if it holds no pretrain_config.json (or is None). Raises RunError
    naming the file and the fault.
    """
    if folder is None or not Path(folder, "pretrain_config.json").exists():
        return None
    if str(folder).endswith(("/", os.sep)):
        raise RunError(
            f"{folder} holds a pre-trained encoder, but ends with a slash, which asks for a new folder inside: leave it out"
        )
    run = RunFolder(folder)
    config = run.read_config("pretrain_config.json", FORMAT, KEYS)
    content = run.load("pretrain_model.pth")
    try:
        if config["encoder"]["encoder"] not in CAUSAL_ENCODERS:
            raise ValueError(f"{config['encoder']['encoder']!r} is no causal encoder")
        signal = SignalConfig.from_dict(config["signal"])
        n_weights = check_members([{"model": config["encoder"], "seq_length": 1}], len(signal.leads))
        if 2 * n_weights > run.size("pretrain_model.pth"):  # at two bytes each
            raise ValueError(f"{n_weights} weights are announced, for which the file is too small")
        pretrained = Pretrained(
            run,
            signal,
            config["encoder"],
            content["encoder"],
            dict(config["training"]),
            *(read_ids(run, part) for part in ("train", "valid")),
        )
        pretrained.load_into(build_encoder(config["encoder"]))  # now rather than after the data has been read
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(
            f"{run / 'pretrain_config.json'} and pretrain_model.pth: {type(error).__name__}: {str(error)[:500]}"
        ) from error
    return pretrained


def read_ids(run, part):
    file = run.regular(f"pretrain_{part}_ids.txt")
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise RunError(f"{file} cannot be read: {error.strerror}") from error
