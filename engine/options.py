"""Flags that every training script shares, and their checks."""

from __future__ import annotations

import os
import sys
from argparse import Action, ArgumentParser, BooleanOptionalAction, Namespace, RawDescriptionHelpFormatter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from data.extras import load_extra
from data.leads import LEADS, standard_leads
from data.metadata_files import find_table
from data.splits import Split
from engine.bf16 import cpu_has_bf16, gpu_has_bf16
from engine.flag_checks import check_numbers
from engine.flags import Flags
from engine.repeat import as_flags, settings_to_repeat
from engine.resume import take_settings
from models import ENCODERS, HEAD

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_INPUT = "./Training_WFDB"
SAMPLE = ROOT / "data" / "sample"
PATH_FLAGS = ("input_folder", "metadata", "cache", "folder", "classes", "teacher", "init", "config")
SIZE_HELP = {  # of the networks in models/
    "stem": "channels of the first convolutions",
    "widths": "channels of each stage",
    "depths": "blocks in each stage",
    "kernel": "samples of a convolution",
    "first_stride": "2: halve the rate from the first stage on, about half the time",
    "filters": "predecessor's network: channels of the stem and after each block",
    "lengths": "predecessor's network: samples of the stem and after each block, whose ratios are the strides",
    "patch": "samples in a token",
    "width": "of the transformer's states",
    "depth": "layers",
    "n_heads": "attention heads",
    "bidirectional": "every frame sees the whole window, not only what was before",
    "dropout": "share dropped in training; transformer: of windows that skip a branch",
    "head_dropout": "share of the encoder's features dropped in training",
}
IMPLIED_SIZES = ("n_leads", "n_classes", "n_covariates")  # of a network; they follow from the data and other flags


class LeadNames(Action):
    """Keeps names of leads as in LEADS and in that order, however they are typed."""

    def __call__(self, parser, namespace, values, option_string=None):
        try:
            setattr(namespace, self.dest, list(standard_leads(values)))
        except ValueError as error:
            parser.error(f"{option_string}: {error}")


class TrainingParser(ArgumentParser):
    """Parser of a script whose docstring is its manual. The first group holds what most people set.

    Args:
        doc: the script's docstring.
        encoders: names of those that --encoder offers, the default first.
        hidden_sizes: of the encoders, that get no flag.
        defaults: {encoder: {flag: value}} of flags that are None where nobody has typed them.
        epochs: text on the default of --epochs, where that is none of these.
        test_fold: text on what becomes of the fold of --test_fold.
    """

    def __init__(
        self,
        doc: str,
        encoders: Iterable[str] = tuple(ENCODERS),
        hidden_sizes: Iterable[str] = (),
        defaults: Mapping[str, Mapping[str, Any]] | None = None,
        epochs: str | None = None,
        test_fold: str = "it is scored at the end",
    ):
        super().__init__(description=doc, formatter_class=RawDescriptionHelpFormatter)
        self.defaults = defaults or {}
        self._add_most_used(epochs or self.default("epochs"))
        self._add_data()
        self._add_split(test_fold)
        self._add_run()
        hidden = {*IMPLIED_SIZES, *hidden_sizes}
        owners = {}
        for name in encoders:
            owners[name] = {size: value for size, value in ENCODERS[name][1].items() if size not in hidden}
        self.sizes = {name: set(sizes) for name, sizes in owners.items()}
        self.model_group = self.add_argument_group("model")
        self.model_group.add_argument(
            "--encoder", choices=sorted(owners), default=next(iter(owners)), help="network (default: %(default)s)"
        )
        self._add_sizes(owners)

    def default(self, flag: str) -> str:
        """For the help: which defaults a flag has, with the encoders that have them."""
        owners = {}
        for encoder, values in self.defaults.items():
            if flag in values:
                owners.setdefault(_shown(values[flag]), []).append(encoder)
        return "default: " + "; ".join(f"{value} for {', '.join(names)}" for value, names in owners.items())

    def _add_most_used(self, epochs: str) -> None:
        group = self.add_argument_group("most used")
        group.add_argument(
            "--input_folder",
            help=f"recordings at any depth, e.g. --input_folder ~/ecg/georgia (default: {DEFAULT_INPUT}; if that does"
            " not exist, the shipped sample data/sample)",
        )
        group.add_argument(
            "--folder",
            help="run folder, e.g. --folder runs/first; with a trailing slash a time-stamped folder is made inside it "
            "(default: ./output_DATE_TIME)",
        )
        group.add_argument(
            "--epochs", type=int, help=f"passes over the training recordings, e.g. --epochs 20 ({epochs})"
        )
        group.add_argument("--cuda", action="store_true", help="use a GPU")
        group.add_argument(
            "--resume",
            action="store_true",
            help="go on with the run in --folder, with its own flags; --resume --epochs 200 extends a finished one",
        )

    def _add_data(self) -> None:
        group = self.add_argument_group("data")
        group.add_argument(
            "--metadata",
            help="CSV with the columns record (or ecg_id, filename_hr, filename_lr) and any of patient_id, strat_fold, "
            "heart_axis (default: metadata.csv in the input folder, or the table of PTB-XL, CODE-15 or MIMIC-IV-ECG)",
        )
        group.add_argument(
            "--records",
            type=int,
            choices=(100, 500),
            default=500,
            help="which recordings of PTB-XL as downloaded, at 100 or 500 Hz; never both (default: %(default)s)",
        )
        group.add_argument("--n_total", type=int, help="use only so many recordings, drawn by --seed (default: all)")
        group.add_argument(
            "--cache", default="./.ecg_cache", help="folder for the preprocessed signals (default: %(default)s)"
        )
        group.add_argument(
            "--workers",
            type=int,
            default=os.cpu_count() or 1,
            help="processes that read recordings into the cache (default: all cores, here %(default)s)",
        )
        group.add_argument("--strict", action="store_true", help="stop if a recording cannot be read or is suspicious")

    def _add_split(self, test_fold: str) -> None:
        group = self.add_argument_group("split into training and validation, always by patient; one of these ways")
        group.add_argument(
            "--valid_split",
            type=float,
            default=0.2,
            help="share of the patients that validates; 0: all train and the last epoch is kept (default: %(default)s)",
        )
        group.add_argument("--valid_fold", type=int, help="validate on this strat_fold of the metadata")
        group.add_argument(
            "--test_fold",
            type=int,
            metavar="K",
            help=f"keep this strat_fold of the metadata out of training and validation; {test_fold}",
        )
        group.add_argument(
            "--split",
            choices=("patient", "fold"),
            default="patient",
            help="fold: validate on the highest strat_fold of the metadata; patient: one of the other ways "
            "(default: %(default)s)",
        )
        group.add_argument(
            "--fold", type=int, metavar="K", help="validate on fold K of --n_folds, stratified by diagnosis"
        )
        group.add_argument("--n_folds", type=int, default=5, help="number of folds for --fold (default: %(default)s)")
        group.add_argument(
            "--hold_out", metavar="SOURCE", help="validate on this sub-folder of the input folder (a hospital)"
        )

    def _add_run(self) -> None:
        group = self.add_argument_group("run")
        group.add_argument(
            "--seed", type=int, default=1, help="everything random follows from it (default: %(default)s)"
        )
        group.add_argument(
            "--bf16",
            action=BooleanOptionalAction,
            help="bfloat16 autocast while training (default: where the device computes it natively)",
        )
        group.add_argument(
            "--compile", action="store_true", help="torch.compile the network: pays on a GPU, in long trainings"
        )
        group.add_argument(
            "--plots",
            action=BooleanOptionalAction,
            default=True,
            help="draw history.png after an epoch, every 3 s at most, and after the last (default: %(default)s)",
        )
        group.add_argument(
            "--tensorboard", action="store_true", help="also write scalars and curves into the run's folder tensorboard"
        )
        group.add_argument("--overwrite", action="store_true", help="replace the run in --folder")
        group.add_argument(
            "--config",
            metavar="FILE",
            help="repeat the run of this config.json, in another folder; flags on the command line win over its own",
        )

    def add_leads_argument(self, group: Any) -> None:
        """--leads, in a group of flags."""
        group.add_argument(
            "--leads",
            nargs="+",
            action=LeadNames,
            default=list(LEADS),
            metavar="LEAD",
            help="the only leads that the model reads, e.g. --leads I II (default: all twelve)",
        )

    def add_head_arguments(self) -> None:
        """Flags of the classification head."""
        self._add_sizes({"head": {"head_dropout": HEAD["head_dropout"]}})
        self.model_group.add_argument(
            "--covariates",
            action=BooleanOptionalAction,
            default=True,
            help="let the head see age, sex and the rhythm of the whole recording (default: %(default)s)",
        )

    def _add_sizes(self, owners: dict[str, dict]) -> None:
        """One flag per size of some networks, {network: {size: default}}; a size that several have is one flag, and one
        that is not given stays None.
        """
        sizes = {}
        for owner, defaults in owners.items():
            for name, value in defaults.items():
                sizes.setdefault(name, {})[owner] = value
        for name, values in sizes.items():
            defaults = ", ".join(f"{owner} {_shown(value)}" for owner, value in values.items())
            self.model_group.add_argument(
                f"--{name}",
                **_kind(next(iter(values.values()))),
                help=f"{SIZE_HELP[name]} (default: {defaults})",
            )

    def parse(self, argv: list[str] | None, prefix: str = "") -> Flags:
        """The flags, checked: what cannot work or contradicts itself is refused before any work is done.

        Args:
            argv: command line, or None for the process's own.
            prefix: of the run's files.
        """
        args = self.parse_args(argv, Flags())
        args.explicit = self._explicit(args, argv)
        if args.config is not None:
            args = self._repeat(args, sys.argv[1:] if argv is None else argv, prefix)
        for name in PATH_FLAGS:
            if getattr(args, name, None) is not None:
                setattr(args, name, os.path.expanduser(getattr(args, name)))  # a shell leaves --folder=~/run alone
        if args.overwrite and args.resume:
            self.error("--overwrite begins anew and --resume goes on: give one of them")
        if args.resume:
            args.explicit = take_settings(self, args, prefix)
        for name, value in self.defaults.get(args.encoder, {}).items():
            if getattr(args, name) is None:
                setattr(args, name, value)
        if args.tensorboard:
            load_extra("tensorboard", "--tensorboard")
        if args.cuda and not torch.cuda.is_available():
            self.error("--cuda: there is no CUDA device (or this is a CPU build of PyTorch): leave the flag out")
        self._check_data(args)
        try:
            check_numbers(args)
            args.split_by = Split.from_flags(vars(args), args.explicit)
        except ValueError as error:
            self.error(str(error))
        if args.bf16 is None:
            args.bf16 = gpu_has_bf16() if args.cuda else cpu_has_bf16()
        return args

    def _explicit(self, args: Flags, argv: list[str] | None) -> set[str]:
        """Names of the flags that stand on the command line, defaults left out."""
        unset = object()
        marked = self.parse_args(argv, Namespace(**dict.fromkeys(vars(args), unset)))
        return {name for name, value in vars(marked).items() if value is not unset}

    def _repeat(self, args: Flags, argv: list[str], prefix: str) -> Flags:
        """The flags of the run that --config names, and over them those on the command line."""
        if args.resume:
            self.error("--config begins a run and --resume goes on with one, with its own flags: give one of them")
        saved = settings_to_repeat(args, prefix)
        if "encoder" in args.explicit:  # it brings sizes of its own
            others = set().union(*self.sizes.values()) - self.sizes[args.encoder]
            usual = self.defaults.get(saved.get("encoder"), {})
            saved = {
                name: value
                for name, value in saved.items()
                if name not in others and (name not in usual or value != usual[name])
            }
        repeated = self.parse_args([*as_flags(saved, self.get_default), *argv], Flags())
        chosen = {name for name, value in saved.items() if value != self.get_default(name)}
        repeated.explicit = args.explicit | chosen
        return repeated

    def check_sizes(self, args: Flags) -> None:
        """Refuse a size that was given but that the chosen encoder does not have, and windows too short for it."""
        every = set().union(*self.sizes.values())
        for name in sorted(every - self.sizes[args.encoder]):
            if getattr(args, name) is not None:
                self.error(f"--{name} is not a size of --encoder {args.encoder}")

    def _check_data(self, args: Flags) -> None:
        if args.input_folder is None:
            args.input_folder = DEFAULT_INPUT
            if not Path(DEFAULT_INPUT).is_dir():
                print(f"There is no {DEFAULT_INPUT}: using the recordings that come with the code, {SAMPLE}")
                args.input_folder = str(SAMPLE)
        elif not Path(args.input_folder).is_dir():
            self.error(f"--input_folder {args.input_folder}: there is no such folder")
        if args.metadata is None and (table := find_table(args.input_folder)):
            args.metadata = str(table)
        if args.metadata is not None and not Path(args.metadata).is_file():
            self.error(f"--metadata {args.metadata}: there is no such file")


def _kind(value: Any) -> dict:
    """Arguments of add_argument for a size with this default."""
    if isinstance(value, bool):
        return {"action": BooleanOptionalAction}
    if isinstance(value, (list, tuple)):
        return {"type": type(value[0]), "nargs": "+"}
    return {"type": type(value)}


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
