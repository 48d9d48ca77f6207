"""--config: the flags of a finished run, to train with them again."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data.metadata_files import may_find_table
from data.splits import SPLIT_FLAGS
from engine.resume import current_names
from engine.run_folder import RunError, read_config_file


def settings_to_repeat(args: Namespace, prefix: str) -> dict[str, Any]:
    """{flag: value} of the run whose config.json --config names, without those that the command line replaces.

    Args:
        args: the flags of the command line; `args.explicit` names those that were typed.
        prefix: of the run's files.

    Raises:
        RunError: there is no such run, or it is an ensemble, whose members have flags of their own.
    """
    file = Path(os.path.expanduser(args.config))
    saved = current_names(read_config_file(file, prefix)["training"])
    if "members" in saved:
        raise RunError(f"{file} is of an ensemble: repeat its members one by one, each by its own config.json")
    unknown = sorted(name for name in saved if not hasattr(args, name))
    if unknown:
        print(f"{file}: this version has no flags {', '.join(unknown)}: they are left out")
    replaced = set(args.explicit) | set(unknown)
    if replaced.intersection(SPLIT_FLAGS):  # another way to split replaces the whole one
        replaced.update(SPLIT_FLAGS)
    if "input_folder" in replaced and _found_by_itself(saved):
        replaced.add("metadata")
    return {name: value for name, value in saved.items() if name not in replaced}


def _found_by_itself(saved: dict) -> bool:
    """Whether the metadata are those of the input folder, which are used without a flag."""
    folder, table = saved.get("input_folder"), saved.get("metadata")
    return isinstance(folder, str) and isinstance(table, str) and may_find_table(folder, table)


def as_flags(settings: dict[str, Any], default: Callable[[str], Any]) -> list[str]:
    """The command line that gives these settings, so that they are checked like one that was typed.

    Args:
        settings: {flag: value}.
        default: of a flag by its name.
    """
    words = []
    for name, value in settings.items():
        if value is None or value == default(name):
            continue
        if isinstance(value, bool):
            words.append(f"--{name}" if value else f"--no-{name}")
        elif isinstance(value, list):
            words += [f"--{name}", *map(str, value)]
        else:
            words.append(f"--{name}={value}")
    return words
