"""Is a model configuration sane? Checked before anything is built from it: it may come from a stranger.

The encoders' and the head's own defaults are the schema: a value must be of the type of its default and within the
limits below, and a network is first built without memory, to count its weights.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from data.covariates import N_COVARIATES
from data.leads import LEADS
from data.measures import N_NUMBERS
from models import FOREST, HEAD, build_model, encoder_class

MAX_SIZE = 2**16  # channels, samples, classes: any single number
MAX_STAGES = 24  # entries of a list
MAX_BLOCKS = 256  # of a network, all stages together
MAX_WEIGHTS = 5 * 10**8
MAX_NODES = 2**26  # of a forest
MAX_TREE_DEPTH = 64  # every question is asked of all trees, even where they have ended
MAX_WINDOW = 2**17  # samples; 22 minutes at 100 Hz
MAX_MEMBERS = 100  # models in one run folder


def check_codes(codes: Iterable[str]) -> None:
    """Refuse, with a ValueError, codes of classes that would break the lines and columns of an output file."""
    for code in codes:
        if not code.strip() or not code.isprintable() or "," in code or code.startswith("#"):
            raise ValueError(
                f"{code[:80]!r} cannot be the code of a class: "
                "it is empty, begins with # or holds a comma or a line end"
            )


def check_members(members: list[dict], n_leads: int) -> int:
    """Refuse, with a ValueError, a list of {"model": config, "seq_length": samples, "overlap": samples} from which no
    model of moderate size for n_leads leads can be built; -> number of weights of all models. "overlap" may be missing.
    """
    if not isinstance(members, list) or not 1 <= len(members) <= MAX_MEMBERS:
        raise ValueError(f"members is not a list of 1 to {MAX_MEMBERS} models")
    n_weights = 0
    for member in members:
        if not isinstance(member, dict) or set(member) - {"overlap"} != {"model", "seq_length"}:
            raise ValueError("a member needs the keys model, seq_length and overlap, and no others")
        _check_whole_number("seq_length", member["seq_length"], 1, MAX_WINDOW)
        if "overlap" in member:
            _check_whole_number("overlap", member["overlap"], 0, member["seq_length"] - 1)
        n_weights += _check_model(member["model"], n_leads)
    return n_weights


def _check_model(config, n_leads):
    """Number of weights of a model config; ValueError for one that no model of moderate size can be built from."""
    if not isinstance(config, dict) or not isinstance(config.get("encoder"), str):
        raise ValueError("a model needs an encoder's name and its sizes")
    _, sizes = encoder_class(config)
    for key, default in {**sizes, **HEAD}.items():
        _check_value(key, config.get(key, default), default)
    if config.get("n_leads", sizes["n_leads"]) != n_leads or config.get("n_covariates", 0) not in (0, N_COVARIATES):
        raise ValueError(f"the model must read {n_leads} leads and 0 or {N_COVARIATES} numbers on the recording")
    n_nodes = _check_forest(config, n_leads)
    n_blocks = config.get("depths", config.get("depth", 0))
    if isinstance(n_blocks, (list, tuple)):
        n_blocks = sum(n_blocks)
    if n_blocks > MAX_BLOCKS:
        raise ValueError(f"more than {MAX_BLOCKS} blocks")
    try:
        with torch.device("meta"):  # shapes only
            n_weights = sum(weight.numel() for weight in build_model(config).parameters())
    except (RuntimeError, TypeError, LookupError, ArithmeticError) as error:
        raise ValueError(f"no such network can be built: {error}") from error
    if n_weights > MAX_WEIGHTS:
        raise ValueError(f"{n_weights} weights, more than {MAX_WEIGHTS}")
    return n_weights + n_nodes


def _check_forest(config, n_leads):
    """Number of nodes of the forest that a model config describes; ValueError for one that cannot be."""
    if not set(FOREST) & set(config):
        return 0
    for key, default in FOREST.items():
        if isinstance(default, float):
            _check_value(key, config.get(key, default), default)
        else:
            _check_whole_number(key, config.get(key), 0, MAX_NODES if key == "n_nodes" else MAX_SIZE)
    if config["tree_depth"] > MAX_TREE_DEPTH:
        raise ValueError(f"tree_depth {config['tree_depth']} is more than {MAX_TREE_DEPTH}")
    if n_leads != len(LEADS) or config["n_numbers"] != N_NUMBERS:
        raise ValueError(f"the forest must read {len(LEADS)} leads and {N_NUMBERS} numbers on the recording")
    if config["n_answered"] * config["n_trees"] > config["n_nodes"]:
        raise ValueError("the forest has more trees than nodes")
    return config["n_nodes"]


def _check_value(key, value, default):
    """A value of a model config must be of the type of its default."""
    if isinstance(default, (list, tuple)):
        if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= MAX_STAGES:
            raise ValueError(f"{key} is not a list of 1 to {MAX_STAGES} numbers")
        for entry in value:
            _check_whole_number(key, entry, 1, MAX_SIZE)
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise ValueError(f"{key} is {str(value)[:80]}, neither true nor false")
    elif isinstance(default, float):  # shares
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise ValueError(f"{key} is {str(value)[:80]}, not a number from 0 to 1")
    else:
        _check_whole_number(key, value, 0 if key == "n_covariates" else 1, MAX_SIZE)


def _check_whole_number(key, value, low, high):
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ValueError(f"{key} is {str(value)[:80]}, not a whole number from {low} to {high}")
