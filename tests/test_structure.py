"""The design's rules on who may import whom, and that the README and CI tell the truth about each other."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data", "models", "engine")
SCRIPTS = ("train", "pretrain", "driver", "run_12ECG_classifier", "evaluate_12ECG_score")
ALLOWED = {
    "data": {"data"},
    "models": {"models"},
    "engine": {"engine", "data", "models"},
    "script": {"engine", "data", "models"},
    "driver": {"engine", "data", "models", "run_12ECG_classifier"},
}


def own_imports(file):
    """Modules of this repository that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in PACKAGES + SCRIPTS}


def module_file(name):
    path = ROOT.joinpath(*name.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None)


def reachable(name):
    """All modules of this repository that importing `name` loads."""
    todo, seen = [name], set()
    while todo:
        module = todo.pop()
        file = module_file(module)
        if file is not None and module not in seen:
            seen.add(module)
            todo += own_imports(file)
    return seen


CODE = [f for package in PACKAGES for f in sorted((ROOT / package).rglob("*.py"))] + [
    ROOT / f"{s}.py" for s in SCRIPTS if (ROOT / f"{s}.py").exists()
]


@pytest.mark.parametrize("file", CODE, ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_point_one_way(file):
    top = file.relative_to(ROOT).parts[0]
    owner = top if top in PACKAGES else ALLOWED.keys() & {file.stem} and file.stem or "script"
    assert {name.split(".")[0] for name in own_imports(file)} <= ALLOWED[owner]


def test_inference_needs_no_training_code():
    loaded = reachable("run_12ECG_classifier")
    assert "engine.inference" in loaded and "data.preprocess" in loaded
    assert not loaded & {
        "data.dataset",
        "data.cache",
        "data.splits",
        "engine.loop",
        "engine.distributed",
        "engine.augment",
        "train",
        "pretrain",
    }


def test_no_file_named_utils():
    assert not [f for f in CODE if "util" in f.stem]


def test_ci_runs_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert "pytest" in command and command in (ROOT / "README.md").read_text(encoding="utf-8")


def test_benchmarks_import_what_they_measure():
    """Benchmarks do not run here, but a change of an interface must not leave them behind."""
    import importlib

    for file in sorted((ROOT / "benchmarks").glob("*.py")):
        importlib.import_module(f"benchmarks.{file.stem}")
