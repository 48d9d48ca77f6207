"""A trained run: the data contract that its config.json states, and the models that keep it.

config.json holds every setting, the data contract (signal, classes, decision, window) and what made it (versions, git
commit). A model file is a dictionary {"members": [state dict, ...]}: a run has one member, an ensemble several.
"""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from data.labels import ClassSet
from data.preprocess import SignalConfig
from engine.checks import check_codes, check_members
from engine.decision import check_rule
from engine.run_folder import FORMATS, VERSION, RunError, RunFolder
from engine.windows import Windows, half_overlapping
from models import ECGModel, build_model


def make_config(
    signal: SignalConfig, class_set: ClassSet, decision: dict, members: list[dict], training: dict, data: dict
) -> dict:
    """Content of config.json.

    Args:
        signal, class_set: the data contract.
        decision: a rule of engine.decision.
        members: [{"model": model config, "seq_length": window in samples, "overlap": of windows in samples}].
        training: the flags.
        data: facts of the recordings; "frequency" holds a number for each class.

    Raises:
        ValueError: they are beyond what `load_run` accepts.
    """
    check_rule(decision, class_set)
    check_members(members, len(signal.leads))
    check_codes(class_set.codes)
    return {
        "format": FORMATS[""][0],
        "version": VERSION,
        "signal": signal.to_dict(),
        "classes": class_set.to_dict(),
        "decision": decision,
        "members": members,
        "training": training,
        "data": data,
        **provenance(),
    }


class LoadedRun(NamedTuple):
    """What a run folder holds, checked."""

    models: list[ECGModel]  # in evaluation mode
    windows: list[Windows]  # how each reads recordings
    signal: SignalConfig
    class_set: ClassSet
    config: dict  # the whole config.json


def load_run(folder: str | os.PathLike, weights: str = "model.pth") -> LoadedRun:
    """Models and data contract of a run folder; everything is checked before use. Raises RunError naming the file and
    the fault.
    """
    run = RunFolder(folder)
    config = run.read_config()
    try:
        signal = SignalConfig.from_dict(config["signal"])
        class_set = ClassSet.from_dict(config["classes"])
        n_weights = check_members(config["members"], len(signal.leads))
        check_codes(class_set.codes)
        check_rule(config["decision"], class_set)
        _check_facts(config, class_set)
        if 2 * n_weights > run.size(weights):  # at two bytes each
            raise RunError(f"{run / weights} is too small for the {n_weights} weights that config.json announces")
        windows = [member_windows(member) for member in config["members"]]
        models = [build_model(member["model"]) for member in config["members"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise RunError(f"{run / 'config.json'}: {type(error).__name__}: {str(error)[:500]}") from error
    _load_weights(models, run, weights, len(class_set))
    return LoadedRun(models, windows, signal, class_set, config)


def member_windows(member: dict) -> Windows:
    """How a checked member of config.json reads recordings: overlapping by half where it does not say."""
    if "overlap" in member:
        return Windows(member["seq_length"], member["overlap"])
    return half_overlapping(member["seq_length"])


def _check_facts(config: dict, class_set: ClassSet) -> None:
    """Raises ValueError unless `training` and `data` are what `make_config` was given."""
    if not isinstance(config["training"], dict):
        raise ValueError("training does not hold settings")
    frequency = config["data"].get("frequency") if isinstance(config["data"], dict) else None
    if not isinstance(frequency, list) or len(frequency) != len(class_set):
        raise ValueError(f"data.frequency does not give a number for each of the {len(class_set)} classes")
    if not all(isinstance(f, (int, float)) and 0 <= f <= 1 for f in frequency):
        raise ValueError("data.frequency holds something else than numbers from 0 to 1")


def _load_weights(models: list[ECGModel], run: RunFolder, weights: str, n_classes: int) -> None:
    """Fill the models from a model file, which must fit exactly. Raises RunError."""
    content = run.load(weights)
    states = content.get("members") if isinstance(content, dict) else None
    if not isinstance(states, list) or len(states) != len(models):
        raise RunError(f"{run / weights} does not hold the {len(models)} model(s) that config.json describes")
    for model, state in zip(models, states):
        load_strictly(model, state, run / weights)
        if model.head.thresholds.numel() != n_classes:
            raise RunError(f"{run / weights} has {model.head.thresholds.numel()} outputs for {n_classes} classes")
        _check_forest(model, run / weights)
        model.eval()


def _check_forest(model, file):
    try:
        if model.forest is not None:
            model.forest.check()
    except ValueError as error:
        raise RunError(f"{file} is damaged: {error}") from error


def load_strictly(module: torch.nn.Module, state: dict, file: Path) -> None:
    """Load all weights of a module and no others. Raises RunError, naming the file, if they do not fit its
    configuration or are not finite.
    """
    try:
        module.load_state_dict(state, strict=True)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise RunError(f"{file} does not fit its config.json: {str(error)[:500]}") from error
    if not all(torch.isfinite(tensor).all() for tensor in module.state_dict().values()):
        raise RunError(f"{file} holds weights that are NaN or infinite")


def provenance() -> dict:
    """What made a run: versions of Python and of the packages, and the commit of the code."""
    return {"versions": _versions(), "git_commit": _git_commit()}


def _versions():
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "scikit-learn", "wfdb", "pandas"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _git_commit():
    """Commit of the code, or None where it is no git checkout."""
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None if result.returncode == 0 else None
