"""Fine-tune a trained classifier on other recordings and classes: what `train.py --init RUN` takes over from RUN.

All of the encoder, and of the head the outputs (weights, bias, threshold) of the classes that both have. So before the
first step these are answered as RUN answers them; other classes begin with their frequency. Of an ensemble the first
network is taken: weights of networks that were trained apart have no meaningful mean.
"""

from __future__ import annotations

import copy
import hashlib
import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data.cache import SignalCache
from data.labels import ClassSet
from data.preprocess import SignalConfig
from data.record_names import NameIndex
from engine.ensemble import read_predictions
from engine.handover import FINE_TUNING_LR, read_ids, refuse_others
from engine.run_folder import RunError, RunFolder
from engine.trained_run import LoadedRun, load_run, load_strictly
from engine.windows import Windows
from models import ENCODERS, HEAD
from models.forest import Forest
from models.heads import ClassificationHead

# Sizes that the weights do not depend on (flags may change them), or that follow from other flags.
NOT_DECIDED = ("dropout", "n_leads")
DROPOUTS = ("dropout", "head_dropout")
LEAD_SUBSETS = 0.4  # share of windows with few leads where the run does not say its own


@dataclass(frozen=True)
class InitialRun:
    """A trained run to start from."""

    path: str  # as it was typed
    loaded: LoadedRun
    trained_on: list[str] | None  # names of recordings; None where the run does not say

    @property
    def model(self) -> dict:
        """Config of the network, defaults included."""
        config = self.loaded.config["members"][0]["model"]
        return {**ENCODERS[config["encoder"]][1], **HEAD, **config}

    @property
    def windows(self) -> Windows:
        """How the network reads recordings; so does the new one, or its answers would not go on from these."""
        return self.loaded.windows[0]

    def apply(self, args: Namespace) -> None:
        """Set the flags that the run decides: rate, leads, window, encoder and its sizes, whether the head sees
        covariates and which leads are there; and, if none are given, the dropouts and the learning rate. Raises
        RunError for a flag of the command line that contradicts.
        """
        model = self.model
        encoder = {name: value for name, value in ENCODERS[model["encoder"]][1].items() if name not in NOT_DECIDED}
        decided = {
            "sample_freq": self.loaded.signal.sample_freq,
            "leads": list(self.loaded.signal.leads),
            "seq_length": self.windows.seq_length,
            "encoder": model["encoder"],
            **{name: model[name] for name in encoder},
            "covariates": model["n_covariates"] > 0,
        }
        refuse_others(args, decided, f"the run in {Path(self.path, 'config.json')}", "--init")
        for name, value in decided.items():
            setattr(args, name, value)
        self._apply_lead_subsets(args, model["lead_flags"])
        for name in DROPOUTS:
            if getattr(args, name, None) is None and name in model:
                setattr(args, name, model[name])
        if "lr" not in args.explicit:
            args.lr = FINE_TUNING_LR

    def _apply_lead_subsets(self, args: Namespace, lead_flags: bool) -> None:
        """A network that is told which leads are missing goes on with windows that lack some."""
        if "lead_subsets" in args.explicit and (args.lead_subsets > 0) != lead_flags:
            told = "is" if lead_flags else "is not"
            raise RunError(
                f"--lead_subsets {args.lead_subsets} contradicts the run in {Path(self.path, 'config.json')}, which "
                f"{told} told which leads are missing: leave the flag out, or name another --init"
            )
        if lead_flags and "lead_subsets" not in args.explicit:
            share = self.loaded.config["training"].get("lead_subsets")  # an ensemble does not say
            args.lead_subsets = share if isinstance(share, float) and 0 < share <= 1 else LEAD_SUBSETS

    def split(
        self, cache: SignalCache, patients: np.ndarray, train: np.ndarray, valid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The rows `train` and `valid` as they are; says how many of those that validate the run was trained on.

        Args:
            cache: the recordings.
            patients: one for each.
            train, valid: rows, as the flags split them.
        """
        self._warn(cache, valid, "validation")
        return train, valid

    def warn_of_test(self, cache: SignalCache, test: np.ndarray) -> None:
        """Say how many of the recordings that are kept out the run was trained on."""
        self._warn(cache, test, "test")

    def _warn(self, cache, rows, part):
        if len(rows) and self.trained_on is None:
            print(f"{self.path} does not say which recordings it was trained on: some may be {part} recordings now")
        elif len(rows):
            seen = np.zeros(len(cache.names), bool)  # (R,)
            index = NameIndex(cache.names)
            for name in self.trained_on:
                seen[index.rows(name)] = True
            if n_seen := int(seen[rows].sum()):
                print(
                    f"{n_seen} of the {len(rows)} {part} recordings have names of recordings that {self.path} was "
                    "trained on: unless they are others, scores will be too good; choose a split that keeps them out"
                )

    def rule_for(self, class_set: ClassSet, default: dict) -> dict:
        """The run's decision rule, odds included, if the classes are the same; else `default`."""
        return self.loaded.config["decision"] if class_set == self.loaded.class_set else default

    def load_into(self, encoder: torch.nn.Module) -> None:
        """Load the encoder's weights, all of them and no others. Raises RunError."""
        load_strictly(encoder, self.loaded.models[0].encoder.state_dict(), Path(self.path, "model.pth"))

    @torch.no_grad()
    def load_classes_into(self, head: ClassificationHead, class_set: ClassSet) -> str:
        """Load weights, biases and thresholds of the classes that the run knows; the others, and auxiliary outputs
        behind them, stay as they are.

        Args:
            head: of C + A outputs, changed in place.
            class_set: names of its first C outputs.

        Returns:
            lines that say what was taken over.
        """
        columns = class_set.shared_with(self.loaded.class_set)
        old = self.loaded.models[0].head
        for new_column, old_column in columns.items():
            head.linear.weight[new_column] = old.linear.weight[old_column]
            head.linear.bias[new_column] = old.linear.bias[old_column]
            head.thresholds[new_column] = old.thresholds[old_column]
        names = [abbreviation or code for abbreviation, code in zip(class_set.abbreviations, class_set.codes)]
        new = [name for column, name in enumerate(names) if column not in columns]
        lines = [f"{len(columns)} of {len(class_set)} classes go on from {self.path}; new: {', '.join(new) or 'none'}"]
        if len(self.loaded.models) > 1:
            lines.insert(0, f"--init {self.path} holds {len(self.loaded.models)} networks: the first is fine-tuned")
        return "\n".join(lines)

    def forest_for(self, class_set: ClassSet) -> Forest | None:
        """The run's forest with the columns of another class set, or None: other classes have no trees."""
        forest = copy.deepcopy(self.loaded.models[0].forest)
        if forest is not None:
            columns = torch.full((len(class_set),), len(forest.roots), dtype=torch.int32)
            for new_column, old_column in class_set.shared_with(self.loaded.class_set).items():
                columns[new_column] = forest.columns[old_column]
            forest.columns = columns
        return forest

    def facts(self) -> dict:
        """What config.json says of it."""
        return {"run": self.path, "n_networks": len(self.loaded.models), "sha256": _sha256(self.path)}


def read_initial(args: Namespace) -> InitialRun:
    """The InitialRun that --init names.

    Args:
        args: init, folder, resume.

    Raises:
        RunError: it is not a trained run, cannot be read, clips signals elsewhere, is the run to be trained, or is not
            the one from which the run to be resumed began.
    """
    run = RunFolder(args.init)
    if not os.path.lexists(run / "config.json"):
        raise RunError(f"--init {args.init}: {_why_not(run)}")
    if args.folder is not None and Path(args.folder).resolve() == run.path.resolve():
        raise RunError(f"--init {args.init} is the --folder, too: name another --folder")
    loaded = load_run(run.path)
    here = SignalConfig(loaded.signal.sample_freq, loaded.signal.leads)
    if loaded.signal != here:
        raise RunError(
            f"--init {args.init} reads signals up to {loaded.signal.clip:g} mV, and this training up to "
            f"{here.clip:g} mV: name another run"
        )
    if args.resume:
        _check_same(args)
    return InitialRun(args.init, loaded, _trained_on(run, loaded))


def _why_not(run):
    """What to do where a folder holds no config.json."""
    if not run.path.is_dir():
        return "there is no such folder; name a run folder of train.py, e.g. --init mdl"
    if os.path.lexists(run / "pretrain_config.json"):
        return (
            f"it holds a pre-trained encoder and no classifier: to fine-tune that, cp -r {run.path} RUN, then "
            "python train.py --folder RUN"
        )
    return "it holds no config.json, so it is not a run folder of train.py; name one, e.g. --init mdl"


def _check_same(args):
    """A run that is resumed began with the same weights, wherever they lie now."""
    run = RunFolder(args.folder)
    if not (run / "config.json").exists():
        return  # nothing to resume yet
    data = run.read_config()["data"]
    facts = data.get("init") if isinstance(data, dict) else None
    if not isinstance(facts, dict) or facts.get("sha256") != _sha256(args.init):
        raise RunError(
            f"{run.path} did not begin with the weights in {Path(args.init, 'model.pth')}: give the --init that it was "
            "started with, or another --folder"
        )


def _sha256(folder):
    return hashlib.sha256(RunFolder(folder).regular("model.pth").read_bytes()).hexdigest()


def _trained_on(run, loaded):
    """Names of the recordings that a run was trained on. Each of an ensemble's was left out by some of its members
    only, which it does not name.
    """
    if "members" in loaded.config["training"]:
        if os.path.lexists(run / "valid_predictions.csv"):
            return list(read_predictions(run, loaded.class_set))
    elif os.path.lexists(run / "train_ids.txt"):
        return read_ids(run, "train")
    return None
