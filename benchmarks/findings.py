"""What a check of a device finds: lines of one table, and how the scripts are called for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple


class Finding(NamedTuple):
    """One line of the table."""

    what: str
    found: str
    expected: str = ""
    passed: bool = True


def at_most(what: str, value: float, limit: float) -> Finding:
    """A figure that must not exceed a limit; NaN does."""
    return Finding(what, f"{value:.1e}", f"at most {limit:g}", value <= limit)


def on(device: str) -> tuple[str, ...]:
    """The flag that makes the scripts use a device."""
    return ("--cuda",) if device == "cuda" else ()


def call(main: Callable, *argv: object, log: Path) -> None:
    """A script's main in this process; what it prints goes into a file."""
    with open(log, "a", encoding="utf-8") as out, contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        main([str(word) for word in argv])


def table(rows: Sequence[Finding]) -> str:
    """Markdown."""
    lines = ["| check | found | expected |", "|---|---|---|"]
    for row in rows:
        verdict = row.expected if row.passed else f"{row.expected}: **failed**"
        lines.append(f"| {row.what} | {row.found} | {verdict} |")
    return "\n".join(lines)
