"""Packages that only some uses need: requirements-extra.txt names them."""

from importlib import import_module
from types import ModuleType


class MissingPackageError(ValueError):
    """A package that is not installed; the message says what needs it and how to install it."""


def load_extra(name: str, purpose: str) -> ModuleType:
    """The module `name`; raises MissingPackageError if it is not installed. `purpose` is what needs it, say a flag."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise MissingPackageError(
            f"{purpose} needs the package {package}, which cannot be imported ({error}): pip install {package}, or "
            "all extras with pip install -r requirements-extra.txt"
        ) from error
