"""Flags that every training script shares, and what they decide: device, recordings, run folder."""

import contextlib
import os
from argparse import BooleanOptionalAction, Namespace
from pathlib import Path

import torch

from data.cache import CacheError, NothingReadable, SignalCache, open_cache
from data.headers import printable
from data.rates import one_rate_only
from data.records import RecordError, find_records
from engine import handover, run_folder
from engine.run_folder import ReadOnlyRunFolder, RunError, RunFolder, new_run_path

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_INPUT, SAMPLE = "./Training_WFDB", ROOT / "data" / "sample"
FORMATS = {
    "": (run_folder.FORMAT, run_folder.KEYS),
    "pretrain_": (handover.FORMAT, handover.KEYS),
}  # of a run's config.json, by prefix
MAX_SHOWN = 20  # lines of what --strict refuses
NOT_PART_OF_A_RUN = (
    "resume",
    "overwrite",
    "workers",
    "cache",
    "cuda",
    "folder",
    "strict",
    "compile",
)  # may differ when a run is resumed


def add_data_arguments(parser):
    group = parser.add_argument_group("data")
    group.add_argument(
        "--input_folder",
        default=None,
        help=f"WFDB records at any depth (default: {DEFAULT_INPUT}; if that does not exist, the shipped sample data/sample)",
    )
    group.add_argument(
        "--metadata",
        default=None,
        help="CSV with the columns record (or ecg_id) and any of patient_id, strat_fold, heart_axis (default: metadata.csv in the input folder, if there)",
    )
    group.add_argument(
        "--n_total", type=int, default=None, help="use only so many recordings, drawn by --seed (default: all)"
    )
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
    group = parser.add_argument_group("split into training and validation, always by patient")
    group.add_argument(
        "--valid_split", type=float, default=0.2, help="share of the patients that validates (default: %(default)s)"
    )
    group.add_argument(
        "--split",
        choices=("patient", "fold"),
        default="patient",
        help="patient: --valid_split, --fold or --hold_out; fold: the metadata's strat_fold, of which the highest validates (default: %(default)s)",
    )
    group.add_argument("--valid_fold", type=int, default=None, help="validate on this strat_fold of the metadata")
    group.add_argument(
        "--fold", type=int, default=None, help="validate on fold K of --n_folds, stratified by diagnosis"
    )
    group.add_argument("--n_folds", type=int, default=5, help="number of folds for --fold (default: %(default)s)")
    group.add_argument(
        "--hold_out",
        metavar="SOURCE",
        default=None,
        help="validate on this sub-folder of the input folder (a hospital)",
    )


def add_run_arguments(parser):
    group = parser.add_argument_group("run")
    group.add_argument(
        "--folder",
        default=None,
        help="run folder; with a trailing slash a time-stamped folder is made inside it (default: ./output_DATE_TIME)",
    )
    group.add_argument("--seed", type=int, default=1, help="everything random follows from it (default: %(default)s)")
    group.add_argument("--cuda", action="store_true", help="train on a GPU")
    group.add_argument(
        "--bf16",
        action=BooleanOptionalAction,
        default=None,
        help="bfloat16 autocast while training (default: where the device computes it natively)",
    )
    group.add_argument(
        "--compile", action="store_true", help="torch.compile the network: pays on a GPU, in long trainings"
    )
    group.add_argument("--resume", action="store_true", help="go on with the interrupted run in --folder")
    group.add_argument("--overwrite", action="store_true", help="replace the run in --folder")


def add_size_arguments(group, owners):
    """One flag per size of the networks in `owners`, {name: {size: default}}; flags that are not given stay None. A
    size that several networks have is one flag. Returns the names of the sizes.
    """
    sizes = {}
    for owner, defaults in owners.items():
        for name, value in defaults.items():
            if name not in ("n_leads", "n_classes"):
                sizes.setdefault(name, {})[owner] = value
    for name, values in sizes.items():
        value = next(iter(values.values()))
        many = isinstance(value, (list, tuple))
        shown = ", ".join(f"{owner} {' '.join(map(str, v)) if many else v}" for owner, v in values.items())
        kind = (
            {"action": BooleanOptionalAction}
            if isinstance(value, bool)
            else {"type": type(value[0] if many else value), "nargs": "+" if many else None}
        )
        group.add_argument(f"--{name}", **kind, default=None, help=f"default: {shown}")
    return set(sizes)


def chosen_sizes(args, defaults):
    """`defaults` with what the flags of `add_size_arguments` say instead."""
    return {
        name: value if getattr(args, name, None) is None else getattr(args, name) for name, value in defaults.items()
    }


def check_sizes(parser, args, sizes, known):
    """Refuse a size that was given but that the chosen network does not have."""
    for name in sorted(sizes - set(known)):
        if getattr(args, name) is not None:
            parser.error(f"--{name} is no size of --encoder {args.encoder}")


def explicit_flags(parser, args, argv=None):
    """Names of the flags that stand on the command line, defaults left out."""
    unset = object()
    marked = parser.parse_args(argv, Namespace(**dict.fromkeys(vars(args), unset)))
    return {name for name, value in vars(marked).items() if value is not unset}


def check_arguments(parser, args):
    """Refuse what cannot work, before any work is done; fills in input_folder, metadata and bf16."""
    if args.cuda and not torch.cuda.is_available():
        parser.error("--cuda: there is no CUDA device (or this is a CPU build of PyTorch)")
    if args.resume and (args.folder is None or args.folder.endswith(("/", os.sep))):
        parser.error("--resume needs --folder RUN, the run folder itself (without a trailing slash)")
    if not 0 < args.valid_split < 1:
        parser.error(f"--valid_split {args.valid_split} is not between 0 and 1")
    for name in ("epochs", "batch_size", "seq_length", "sample_freq", "lr", "n_total"):
        if getattr(args, name, None) is not None and getattr(args, name) <= 0:
            parser.error(f"--{name} must be positive")
    if args.input_folder is None:
        args.input_folder = DEFAULT_INPUT
        if not Path(DEFAULT_INPUT).is_dir():
            print(
                f"There is no {DEFAULT_INPUT}: training on the sample of recordings that comes with the code, {SAMPLE}"
            )
            args.input_folder = str(SAMPLE)
    elif not Path(args.input_folder).is_dir():
        parser.error(f"--input_folder {args.input_folder}: there is no such folder")
    if args.metadata is None and Path(args.input_folder, "metadata.csv").is_file():
        args.metadata = str(Path(args.input_folder, "metadata.csv"))
    if args.metadata is not None and not Path(args.metadata).is_file():
        parser.error(f"--metadata {args.metadata}: there is no such file")
    if args.bf16 is None:
        args.bf16 = torch.cuda.is_bf16_supported() if args.cuda else cpu_has_bf16()


def cpu_has_bf16():
    """Whether this processor multiplies bfloat16 natively; elsewhere it is emulated and slower than float32."""
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def open_recordings(args, signal_config, group, run, prefix="") -> SignalCache:
    """The recordings that args names; says what was skipped. Of several processes the first one builds the cache.

    Args:
        args: the flags.
        signal_config: SignalConfig of the model.
        group: ProcessGroup.
        run: RunFolder, where the list of skipped recordings is written if it is all of them.
        prefix: of the names of its files.

    Raises:
        CacheError, RecordError: if there are no recordings, none can be read, or --strict finds fault with them.
    """
    records, left_out = one_rate_only(find_records(args.input_folder))
    if left_out:
        print(left_out)
    if args.n_total is not None and args.n_total < len(records):
        chosen = torch.randperm(len(records), generator=torch.Generator().manual_seed(args.seed))[: args.n_total]
        records = [records[i] for i in sorted(chosen.tolist())]
    with group.main_process_first():
        try:
            cache = open_cache(records, signal_config, args.cache, args.workers, not group.is_main, group.is_main)
        except NothingReadable as error:
            _write_skipped(run, error.skipped_rows, prefix)
            raise CacheError(f"{error}; all are listed in {run / f'{prefix}skipped_records.csv'}") from None
    if len(set(group.all_gather_object(cache.path.name))) > 1:
        raise CacheError(f"--cache {args.cache}: the processes see different recordings; start again")
    print(
        f"{len(cache)} recordings in {args.input_folder}, {len(cache.skipped)} skipped, {len(cache.warnings)} remarks"
    )
    copies = [(group[0], f"same signals as {', '.join(group[1:])}") for group in cache.duplicates]
    faults = cache.skipped + cache.warnings + copies
    if args.strict and faults:
        for name, reason in faults[:MAX_SHOWN]:
            print(f"  {printable(f'{name}: {reason}')}")
        name, reason = faults[0]
        raise RecordError(
            f"--strict: {len(cache.skipped)} recordings skipped, {len(cache.warnings)} remarks, {len(copies)} copied; "
            f"the first is {name}: {reason}"
        )
    return cache


def write_skipped_and_warnings(run, cache, prefix=""):
    """Lists of the recordings that could not be read, and of what is suspicious about others."""
    _write_skipped(run, cache.skipped_rows, prefix)
    run.write_rows(
        f"{prefix}record_warnings.txt",
        [{"record": name, "warning": text} for name, text in cache.warnings],
        ["record", "warning"],
    )


def _write_skipped(run, skipped_rows, prefix):
    run.write_rows(f"{prefix}skipped_records.csv", skipped_rows, ["record", "stage", "reason"])


class Finished(Exception):
    """The run that was to be resumed has come to its end already."""


@contextlib.contextmanager
def open_run(args, group, prefix=""):
    """The run folder that args names, made if needed and locked against other writers. A run that lies there already is
    resumed, replaced or refused; one that is finished ends the script. `prefix` tells pre-training's files from others.
    Of several processes the first one decides all this and tells the others."""
    if not group.is_main:
        path = group.broadcast()
        if path is None:
            raise SystemExit(0)
        yield ReadOnlyRunFolder(path)
        return
    try:
        with _opened_run(args, prefix) as run:
            group.broadcast(str(run.path))
            yield run
    except Finished:
        group.broadcast(None)
        raise SystemExit(0) from None


@contextlib.contextmanager
def _opened_run(args, prefix):
    run = RunFolder(new_run_path(args.folder))
    finished, checkpoint = run / f"{prefix}final_model.pth", run / f"{prefix}checkpoint.pth"
    run.create()
    with run.only_writer():
        if args.resume and finished.exists():
            checkpoint.unlink(missing_ok=True)
            print(f"{run.path} is finished: nothing to resume")
            raise Finished
        if (run / f"{prefix}config.json").exists() and not args.resume:
            if not args.overwrite:
                raise RunError(
                    f"{run.path} holds a run already: name another --folder, or give --overwrite or --resume"
                )
            # What marks the old run as finished or resumable goes first: whenever this is interrupted, nothing of it
            # is gone on with.
            for name in ("final_model.pth", "checkpoint.pth", "model.pth", "history.csv", "config.json"):
                run.remove(f"{prefix}{name}")
        yield run


def settings_of_run(args):
    """The flags that decide a run's result, as plain values for config.json and for comparing when it is resumed."""
    return {name: value for name, value in vars(args).items() if name not in NOT_PART_OF_A_RUN}


def check_checkpoint(state):
    """Refuse, with a ValueError, what is no checkpoint of a training of this version."""
    if not isinstance(state, dict) or set(state) != {"trainer", "history", "best", "settings"}:
        raise ValueError("it holds other things than a checkpoint of this version")
    history, best = state["history"], state["best"]
    if not isinstance(best, float) or not isinstance(history, list) or not history:
        raise ValueError("it has no history or no best score")
    if not all(isinstance(row, dict) and list(row) == list(history[0]) for row in history):
        raise ValueError("its history is no table")


def resume(run, trainer, args, train_ids, prefix=""):
    """Put the trainer back to the last finished epoch of an interrupted run; -> (history, best score so far), or None
    if there is nothing to go on with. A run is resumed only with the flags and the recordings (`train_ids`, the text
    of train_ids.txt) that it was started with, and by the version that wrote it.
    """
    if not args.resume or not (run / f"{prefix}checkpoint.pth").exists():
        return None
    run.read_config(f"{prefix}config.json", *FORMATS[prefix])
    state, ids = run.load(f"{prefix}checkpoint.pth"), run / f"{prefix}train_ids.txt"
    if not ids.is_file() or ids.read_text(encoding="utf-8", errors="replace") != train_ids:
        raise RunError(f"{ids} names other recordings than would train now: has {args.input_folder} changed?")
    try:
        check_checkpoint(state)
        saved, new = state["settings"], settings_of_run(args)
        different = [
            f"--{name} {new.get(name)!r} (was {saved.get(name)!r})"
            for name in sorted(new | saved)
            if new.get(name) != saved.get(name)
        ]
        if different:
            raise RunError(f"{run.path} was started with other settings: {', '.join(different)}")
        trainer.load_state(state["trainer"])
        history, best = state["history"], state["best"]
    except RunError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RunError(
            f"{run / f'{prefix}checkpoint.pth'} is no checkpoint of this training: {error!r}"[:500]
        ) from error
    print(f"Resumed after epoch {len(history)}")
    return history, best
