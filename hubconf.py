"""Load the model into a notebook or program that lies elsewhere, the way that PyTorch has for it (torch.hub):

    model = torch.hub.load("CLONE", "ecg_classifier", source="local")      # CLONE: the folder that this file is in
    table = model.classify(array, 500, unit="mV")                          # array (12, n): a pandas DataFrame

The packages of this repository are called data, models and engine, and so may yours be. They are imported aside:
whatever you have imported under these names, or import later, is your own.
"""

import contextlib
import pathlib
import sys

dependencies = ["numpy", "pandas", "scipy", "torch"]  # torch.hub names those that are not installed
_CLONE = pathlib.Path(__file__).resolve().parent
_PACKAGES = ("data", "engine", "models")


def ecg_classifier(folder=None, device="cpu"):
    """An `engine.inference.Predictor`; docs/python.md shows what it can do.

    Args:
        folder: a run folder, or a folder of them (an ensemble); None is the model that comes with the code, mdl/.
        device: "cpu" or "cuda".

    Raises:
        RuntimeError: there is no such folder, or it does not hold a model.
    """
    with _own_packages():
        from engine.inference import load_predictor

        return load_predictor(_CLONE / "mdl" if folder is None else folder, device)


@contextlib.contextmanager
def _own_packages():
    """Within the block, `data`, `engine` and `models` are those of this folder; after it, what they were before."""
    others = _taken_away()
    sys.path.insert(0, str(_CLONE))
    try:
        yield
    finally:
        sys.path.remove(str(_CLONE))
        _taken_away()
        sys.modules.update(others)


def _taken_away():
    """{name: module} of all modules of these packages, which are no longer registered as imported."""
    names = [name for name in sys.modules if name.partition(".")[0] in _PACKAGES]
    return {name: sys.modules.pop(name) for name in names}
