"""What the documentation says is so: commands run, flags exist, links lead somewhere, trees name every file."""

import contextlib
import csv
import io
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import ENVIRONMENT, ROOT, TINY_HIDDEN, TINY_PRETRAINING, write_ptb_xl

from data.records import find_records

PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("data/*/README.md")])

# Commands of the documentation that no test runs in a smaller version, by what they contain, with the reason.
NOT_RUN = {
    "pip install": "it changes the environment; .ci/run installs in the same way",
    "python3 -m venv": "it changes the environment; .ci/run makes one in the same way",
    ".venv/bin/activate": "it changes the environment",
    "ruff": "no test; .ci/run runs it",
    "python -m pytest": "it would run these tests",
    "--cuda": "a GPU; test_distributed.py tests these paths with the processor as the device",
    "torchrun": "many processes; test_distributed.py runs two",
    "tests/robustness/": "an hour; test_kill.py, test_load.py and test_hostile_files.py run smaller versions",
    "python -m benchmarks": "minutes to hours; test_benchmarks.py and test_handover.py test their parts",
    "--tensorboard": "it needs a package of requirements-extra.txt; test_repeat.py runs it",
    "export.py": "it needs packages of requirements-extra.txt; test_export.py runs it",
    "--n_folds 7": "seven trainings of 60 epochs; docs/runs.md has the same with two",
    "runs/fold_7": "seven trainings of 60 epochs; docs/runs.md has the same with two",
    "submission/": "a training of 60 epochs; test_submission.py runs smaller versions",
    "docker": "a container engine; test_submission.py does the steps of the Dockerfile",
    "runs/folds_1_to_7": "trainings of minutes; the shorter ones of docs/runs.md are run",
    "runs/encoder": "a pre-training of minutes; docs/pretraining.md has a shorter one",
    "runs/seed_": "trainings of minutes, after the pre-training that is not run",
    "runs/oof_": "pre-trainings and trainings of minutes; docs/runs.md has folds that are run",
    "--sample_freq_in": "arrays; test_convert.py reads them",
    "--folder mdl": "the shipped encoder and network would be trained anew; test_hidden.py trains smaller ones",
}
TINY = tuple("--stem 8 --widths 8 8 --depths 1 1".split())
BRIEF = tuple("--epochs 1 --batch_size 8 --no-plots".split())  # a picture takes longer than such an epoch
PYTHON_PAGES = (ROOT / "README.md", ROOT / "docs" / "python.md")
CODE = ("*.py", "data/*.py", "data/formats/*.py", "models/*.py", "engine/*.py", "submission/*.py", "submission/*/*.py")
TABLES = ("patients.csv", "ptbxl_database.csv", "FILE.csv")  # names that the documentation gives to metadata


def blocks(page, language):
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def commands(text):
    """The commands of a shell text, each a list of words: without comments, environment and what belongs to loops."""
    found = []
    text = text.replace("\\\n", " ")
    text = re.sub(r"\$\(.*?\)|\$\w+", "1", text)
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            words = words[1:]
        if not words or words[0] in ("for", "done"):
            continue
        command = []
        for word in [*words, "&&"]:
            if word == "&&":
                found.append(command)
                command = []
            else:
                command.append(word)
    return found


def documented(page):
    """All commands of a page: of its blocks, and those that stand in a line of text."""
    text = "\n".join(blocks(page, "bash"))
    inline = re.findall(r"`((?:python|torchrun|cp|mkdir) [^`\n]*)`", page.read_text(encoding="utf-8"))
    return commands(text) + [command for line in inline for command in commands(line)]


def program(command):
    """(file, its arguments) of a command that starts Python code of this repository, else (None, [])."""
    for i, word in enumerate(command):
        if word == "-m" and command[0] == "python":
            module = ROOT.joinpath(*command[i + 1].split("."))
            file = module / "__main__.py" if module.is_dir() else module.with_suffix(".py")
            own = command[i + 1].split(".")[0] in ("benchmarks", "engine", "data")
            return (file, command[i + 2 :]) if own and "NAME" not in command[i + 1] else (None, [])
        if word.endswith(".py") and command[0] in ("python", "torchrun", "srun"):
            return ROOT / word, command[i + 1 :]
    return None, []


@cache
def help_of(file):
    """What a script prints with --help."""
    out = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [str(file), "--help"]),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        runpy.run_path(str(file), run_name="__main__")
    return out.getvalue()


def test_there_is_something_to_check():
    found = [command for page in PAGES for command in documented(page)]
    assert len(PAGES) > 10
    assert {"train.py", "driver.py"} <= {file.name for file, _ in map(program, found) if file}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_documented_scripts_and_flags_exist(page):
    for command in documented(page):
        file, arguments = program(command)
        if file is None:
            continue
        assert file.is_file(), f"{shlex.join(command)}: there is no {file.relative_to(ROOT)}"
        for word in arguments:
            if word.startswith("--"):
                flag = re.escape(word.partition("=")[0])
                assert re.search(rf"(?<![\w-]){flag}(?![\w-])", help_of(file)), f"{shlex.join(command)}: no {word}"


@pytest.mark.parametrize(
    "script, texts, others",
    [
        (
            "train.py",
            ["use a GPU", "it is scored at the end", "--fold K", "share of windows with white noise (default: 0.3)"],
            ["see engine/augment.py"],
        ),
        (
            "pretrain.py",
            ["use a GPU", "out of training and validation; give it to train.py too", "layers (default: transformer 4)"],
            ["scored at the end", "train.py --cuda"],
        ),
        ("predict.py", ["without FILE into ID.png; left out: no picture"], ["default: ID.png"]),
    ],
)
def test_help_says_what_flags_are(script, texts, others):
    text = help_of(ROOT / script)
    words = " ".join(text.split())
    assert [part for part in texts if part not in words] == [] and [part for part in others if part in words] == []
    assert re.findall(r"^  --(\w+).*(?:\n +|  +)default:", text, re.MULTILINE) == []  # and no more than its default


@pytest.fixture(scope="module")
def recordings(tmp_path_factory, sample):
    """A folder of 36 real recordings of two sources, ID among them, and metadata for those of PTB-XL."""
    folder = tmp_path_factory.mktemp("documented")
    with open(sample / "metadata.csv", newline="") as lines:
        rows = list(csv.DictReader(lines))
    rows.sort(key=lambda row: row["strat_fold"] != "8")  # --valid_fold 8 needs some
    for record in [*find_records(sample / "georgia")[:8], *(sample / "ptb-xl" / row["record"] for row in rows[:28])]:
        path = Path(getattr(record, "path", record))
        for ending in (".hea", ".mat"):
            place = folder / "in" / path.parent.name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy(path.with_suffix(ending), place)
    shutil.copy(sample / "metadata.csv", folder)
    return folder


@pytest.fixture(scope="module")
def trained(recordings, run_script):
    """A run folder."""
    run_script("train.py", "--input_folder", "in", "--folder", "run", *TINY, *BRIEF, cwd=recordings)
    return recordings / "run"


def furnish(folder, recordings):
    """Give a folder everything that documented commands expect to be there."""
    for name in ("Training_WFDB", "DIR", "IN", "LABELS"):
        os.symlink(recordings / "in", folder / name)
    for name in TABLES:
        shutil.copy(recordings / "metadata.csv", folder / name)
    (folder / "classes.csv").write_text("code\n426783006\n164889003\n164865005\n")
    write_ptb_xl(folder / "ptb-xl-1.0.3", {"7": "9", "8": "10"})
    (folder / "mdl").symlink_to(ROOT / "mdl")
    (folder / "data").symlink_to(ROOT / "data")
    return find_records(recordings / "in" / "georgia")[0].record_id


def smaller(file, arguments, folder, record_id):
    """The arguments of a command, made to work on what is there and to end soon."""
    arguments = [word.replace("DIR/ID", f"DIR/georgia/{record_id}") for word in arguments]
    if file.name == "pretrain.py":
        arguments += TINY_HIDDEN if "xresnet" in arguments else TINY_PRETRAINING
    if file.name == "train.py":
        run = folder / arguments[arguments.index("--folder") + 1] if "--folder" in arguments else None
        pretrained = run is not None and (run / "pretrain_config.json").exists()
        given = pretrained or "--init" in arguments
        arguments += BRIEF if given else (*TINY, *BRIEF)  # an encoder that is given has its size
        if run is not None and (run / "config.json").exists() and "--resume" not in arguments:
            arguments += ["--overwrite"]
    return arguments


def is_run(command):
    return not any(part in shlex.join(command) for part in NOT_RUN)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if documented(page)], ids=lambda page: page.name)
def test_documented_commands_run(page, recordings, trained, tmp_path, run_script):
    """Every command in a smaller version: a tiny network, one epoch, 36 recordings."""
    record_id = furnish(tmp_path, recordings)
    for command in filter(is_run, documented(page)):
        file, arguments = program(command)
        if file is None:
            assert command[0] in ("cp", "mkdir"), f"{shlex.join(command)}: neither run nor in NOT_RUN"
            if command[0] == "mkdir":
                shutil.rmtree(tmp_path / command[-1], ignore_errors=True)
            subprocess.run(" ".join(command), shell=True, cwd=tmp_path, check=True)
            continue
        if file.name not in ("train.py", "pretrain.py") and not (tmp_path / "RUN").exists():
            shutil.copytree(trained, tmp_path / "RUN")
        run_script(file, *smaller(file, arguments, tmp_path, record_id), cwd=tmp_path)


def test_what_is_not_run_is_documented():
    found = [shlex.join(command) for page in PAGES for command in documented(page)]
    assert not [part for part in NOT_RUN if not any(part in text for text in found)]


@pytest.mark.slow
@pytest.mark.parametrize(
    "block", [block for page in PYTHON_PAGES for block in blocks(page, "python") if "sklearn" not in block]
)
def test_documented_python_runs(block, recordings, trained, tmp_path):
    record_id = furnish(tmp_path, recordings)
    shutil.copytree(trained, tmp_path / "RUN")
    np.save(tmp_path / "array.npy", np.random.default_rng(0).normal(0, 0.3, (12, 5000)))
    code = block.replace("DIR/ID", f"DIR/georgia/{record_id}").replace('"CLONE"', repr(str(ROOT)))
    environment = {**ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "script", sorted(file.name for file in ROOT.glob("*.py") if file.stem not in ("run_12ECG_classifier", "hubconf"))
)
def test_scripts_start_from_anywhere(script, tmp_path):
    """In a process of its own, which finds the packages beside the script."""
    done = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr


def anchors(page):
    """Anchors of a page's headings, made as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith(("https://", "http://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name}: {target}"


def named_in_tree(page):
    """Paths in the tree of a page: a folder begins at the margin, what is in it is indented below."""
    named = set()
    folder = ""
    for line in blocks(page, "text")[0].splitlines():
        name = line.split()[0]
        if line.startswith(" "):
            named.add(folder + name)
            continue
        named.add(name)
        folder = name if name.endswith("/") else ""
    return named


@pytest.mark.parametrize("name, places", [("README.md", ("*.py",)), ("docs/code.md", CODE)])
def test_trees_name_every_file(name, places):
    named = named_in_tree(ROOT / name)
    missing = sorted(path for path in named if not (ROOT / path).exists())
    assert not missing, f"{name} names what is not there: {missing}"
    files = {str(file.relative_to(ROOT)) for place in places for file in ROOT.glob(place)}
    unnamed = sorted(path for path in files - named if not path.endswith("__init__.py"))
    assert not unnamed, f"give these files a line in the tree of {name}: {unnamed}"
