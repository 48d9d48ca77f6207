"""The design's rules on who may import whom, and that CI runs what the README says."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("data", "models", "engine")
SCRIPTS = tuple(file.stem for file in sorted(ROOT.glob("*.py")))
ALLOWED = {
    "data": {"data"},
    "models": {"models"},
    "engine": {"engine", "data", "models"},
    "submission": {"engine", "data", "models", "run_12ECG_classifier", "train"},  # it starts the experiment
}
# No script imports another, but for the one that the organisers' drivers import: it is how a model is loaded.
ALLOWED_SCRIPT = {"engine", "data", "models", "run_12ECG_classifier"}
CODE = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
CODE += [ROOT / f"{script}.py" for script in SCRIPTS]
CODE += sorted((ROOT / "submission").rglob("*.py"))


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
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def reachable(name):
    """All modules of this repository that importing `name` loads."""
    todo = [name]
    seen = set()
    while todo:
        module = todo.pop()
        file = module_file(module)
        if file is not None and module not in seen:
            seen.add(module)
            todo += own_imports(file)
    return seen


@pytest.mark.parametrize("file", CODE, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file):
    allowed = ALLOWED.get(file.relative_to(ROOT).parts[0], ALLOWED_SCRIPT)
    assert {name.split(".")[0] for name in own_imports(file)} <= allowed


def test_inference_needs_no_training_code():
    loaded = reachable("run_12ECG_classifier")
    assert {"engine.inference", "data.preprocess"} <= loaded
    training = {"data.dataset", "data.cache", "data.splits", "engine.loop", "engine.distributed", "engine.augment"}
    assert not loaded & (training | {"train", "pretrain"})


def test_ci_runs_the_readmes_test_command():
    command = (ROOT / ".ci" / "run").read_text().strip().splitlines()[-1]
    assert "pytest" in command
    assert command in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
