"""Open, lock, overwrite and resume a run."""

from __future__ import annotations

import contextlib
import os
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator

import torch

from engine.checks import check_members
from engine.distributed import ProcessGroup
from engine.history import CHECKPOINT_VERSION, TENSORBOARD, History
from engine.loop import Trainer
from engine.recordings import TrainValid
from engine.run_folder import PRETRAIN, ReadOnlyRunFolder, RunError, RunFolder, new_run_path
from engine.trained_run import member_windows
from engine.windows import Windows

# What may differ when a run is resumed: recordings, and the run of --init, are compared by what they contain, and a run
# may be extended.
MAY_DIFFER = ("input_folder", "metadata", "init", "epochs")
RENAMED = {"hide_context": "hide_covariates"}  # flags of earlier versions
# Whenever overwriting is interrupted, nothing of the old run may be taken for a part of the new one.
OVERWRITTEN = (
    *("final_model.pth", "checkpoint.pth", "model.pth", "history.csv", "history.png", "config.json"),
    *("valid_predictions.csv", "test_ids.txt", "test_predictions.csv", "test_scores.json"),
)


def take_settings(parser: ArgumentParser, args: Namespace, prefix: str = "") -> set[str]:
    """With --resume: set the flags that are not on the command line to those of the run in --folder.

    Args:
        parser: of the script, for its defaults.
        args: the flags; changed in place. `args.explicit` names those on the command line.
        prefix: of the run's files.

    Returns:
        Names of the flags on the command line and of those that the run was started with in place of their defaults.

    Raises:
        RunError: a flag on the command line contradicts the run.
    """
    if args.folder is None:
        parser.error("--resume needs --folder RUN, the run folder itself")
    args.folder = args.folder.rstrip("/" + os.sep) or os.sep  # a shell adds the slash
    run = RunFolder(args.folder, prefix)
    if not (run / "config.json").exists():
        print(f"Nothing to resume in {run.path}: starting")
        return args.explicit
    saved = current_names(run.read_config()["training"])
    different = [
        f"--{name} {getattr(args, name)!r} (was {value!r})"
        for name, value in sorted(saved.items())
        if name in args.explicit and name not in MAY_DIFFER and getattr(args, name) != value
    ]
    if different:
        raise RunError(f"{run.path} was started with other settings: {', '.join(different)}")
    for name, value in saved.items():
        if hasattr(args, name) and name not in args.explicit:
            setattr(args, name, value)
    return args.explicit | {name for name, value in saved.items() if value != parser.get_default(name)}


def current_names(settings: dict) -> dict:
    """Settings of a run in the words of this version."""
    settings = {RENAMED.get(name, name): value for name, value in settings.items()}
    if "n_context" in settings:
        settings["covariates"] = settings.pop("n_context") != 0
    return settings


@contextlib.contextmanager
def open_run(args: Namespace, group: ProcessGroup, prefix: str = "") -> Iterator[RunFolder]:
    """The run folder that the flags name, made if needed and locked against other writers. A run that lies there
    already is resumed, replaced or refused. Of several processes the main one decides this and tells the others.

    Args:
        args: folder, resume, overwrite.
        group: the processes that train together.
        prefix: of the run's files; a training and a pre-training may share a folder.

    Raises:
        RunError: the folder holds a run already, is in use or cannot be made.
    """
    if not group.is_main:
        yield ReadOnlyRunFolder(group.broadcast(), prefix)
        return
    run = RunFolder(new_run_path(args.folder), prefix)
    run.create()
    with run.only_writer():
        if (run / "config.json").exists() and not args.resume:
            _overwrite(run, args.overwrite)
        group.broadcast(str(run.path))
        yield run


def _overwrite(run: RunFolder, allowed: bool) -> None:
    if not allowed:
        text = f"{run.path} holds a run already: name another --folder, or give --overwrite or --resume"
        if not run.prefix and (run.path / f"{PRETRAIN}config.json").exists():
            text += f"; to fine-tune its encoder anew: mkdir NEW && cp {run.path}/{PRETRAIN}* NEW, and --folder NEW"
        raise RunError(text)
    for name in OVERWRITTEN:
        run.remove(name)
    shutil.rmtree(run / TENSORBOARD, ignore_errors=True)


def resumed_windows(run: RunFolder, n_leads: int) -> Windows:
    """How the network of a run that is resumed has read recordings so far: its scores go on as they began.

    Args:
        run: that holds a config.json.
        n_leads: that the network reads.

    Raises:
        RunError: the config.json does not say it.
    """
    members = run.read_config()["members"]
    try:
        check_members(members, n_leads)
    except ValueError as error:
        raise RunError(f"{run / 'config.json'}: {str(error)[:500]}") from error
    return member_windows(members[0])


def start_or_resume(
    run: RunFolder,
    trainer: Trainer,
    args: Namespace,
    recordings: TrainValid,
    config: dict,
    metric: str,
    shown: dict[str, str],
) -> History:
    """Begin a run's files, or put the trainer back to the last finished epoch of an interrupted run.

    Args:
        run: the open run folder.
        trainer: its state is replaced when resuming.
        args: the flags.
        recordings: that train and validate.
        config: content of config.json.
        metric: column of history.csv that decides which epoch is best; "valid_loss" is best where it is least.
        shown: {column: word} of what is printed of an epoch.

    Returns:
        The History so far.

    Raises:
        RunError: the run had other recordings or settings, or its checkpoint cannot be used.
    """
    history = History(
        run,
        metric,
        higher_is_better=metric != "valid_loss",
        shown=shown,
        settings=args.settings(),
        digest=recordings.digest(),
        is_main=trainer.group.is_main,
        plots=args.plots,
        tensorboard=args.tensorboard,
    )
    if args.resume and (run / "checkpoint.pth").exists():
        _load_checkpoint(run, trainer, args, recordings, history)
        if history.n_epochs == args.epochs:
            print(f"Nothing to resume: {run.path} has all of its {args.epochs} epochs; a larger --epochs trains on")
        else:
            print(f"Resumed after epoch {history.n_epochs} of {args.epochs}")
        if run.read_config()["training"].get("epochs") != args.epochs:
            run.write_json("config.json", config)
    elif args.resume and (run / "final_model.pth").exists():
        raise RunError(f"{run.path} is finished, by a version that kept nothing to go on with: name another --folder")
    else:
        recordings.write_lists(run)
        run.write_json("config.json", config)
    return history


def _load_checkpoint(
    run: RunFolder, trainer: Trainer, args: Namespace, recordings: TrainValid, history: History
) -> None:
    file = run / "checkpoint.pth"
    state = run.load("checkpoint.pth")
    try:
        _check_checkpoint(state)
        _compare_recordings(run, state, recordings)
        _compare_settings(run, current_names(state["settings"]), args.settings())
        trainer.load_state(state["trainer"])
    except (RunError, torch.OutOfMemoryError):
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise RunError(f"{file} is not a checkpoint of this training: {error!r}"[:500]) from error
    history.rows = state["history"]
    history.best = state["best"]
    if history.n_epochs > args.epochs:
        raise RunError(f"{run.path} has {history.n_epochs} epochs already, more than --epochs {args.epochs}")


def _check_checkpoint(state: object) -> None:
    """Refuse, with a ValueError, what is not a checkpoint of a training of this version or the one before."""
    keys = {"trainer", "history", "best", "settings"}
    if not isinstance(state, dict) or set(state) not in (keys, keys | {"version", "recordings"}):
        raise ValueError("it holds other things than a checkpoint of this version")
    if state.get("version", 1) not in (1, CHECKPOINT_VERSION):
        raise ValueError(f"it has version {state['version']!r:.80}")
    history = state["history"]
    if not isinstance(state["best"], float) or not isinstance(history, list) or not history:
        raise ValueError("it has no history or no best score")
    if not all(isinstance(row, dict) and list(row) == list(history[0]) for row in history):
        raise ValueError("its history is not a table")


def _compare_recordings(run: RunFolder, state: dict, recordings: TrainValid) -> None:
    """A recording is what it contains, not how its path is spelt."""
    if "recordings" in state:
        same = state["recordings"] == recordings.digest()
    else:
        ids = run.regular("train_ids.txt").read_text(encoding="utf-8", errors="replace")
        same = ids.splitlines() == recordings.names(recordings.train)
    if not same:
        raise RunError(
            f"{run / 'train_ids.txt'} and valid_ids.txt name other recordings, or other diagnoses, than would train "
            "now: give the --input_folder and --metadata that the run was started with, or another --folder"
        )


def _compare_settings(run: RunFolder, saved: dict, new: dict) -> None:
    names = sorted((new.keys() & saved.keys()) - set(MAY_DIFFER))
    different = [f"--{name} {new[name]!r} (was {saved[name]!r})" for name in names if new[name] != saved[name]]
    if different:
        raise RunError(f"{run.path} was started with other settings: {', '.join(different)}")
