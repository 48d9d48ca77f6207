"""The Challenges' entry points: what their scripts call and write, and the steps of the Dockerfile."""

import fnmatch
import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain_evaluator as plain
import pytest
from conftest import ENVIRONMENT, LEADS, ROOT
from scipy.io import loadmat, savemat

import driver
from data.labels import TABLES, load_class_set
from data.records import find_records
from evaluate_12ECG_score import evaluate_12ECG_score

SUBMISSION = ROOT / "submission"
LEAD_SETS = (LEADS, LEADS[:6], ("I", "II", "III", "V2"), ("I", "II", "V2"), ("I", "II"))
CLASSES = load_class_set("cinc2021")
TINY = "--stem 8 --widths 8 8 --depths 1 1 --epochs 1 --batch_size 8 --no-plots".split()


@pytest.fixture(scope="module")
def model_folder(untrained_run):
    return untrained_run(CLASSES).path


@pytest.fixture
def entry_points(monkeypatch):
    """A function that imports a script of a year as the organisers' own scripts do: from the folder they lie in."""
    before = set(sys.modules)

    def load(year, name):
        monkeypatch.syspath_prepend(SUBMISSION / year)
        return importlib.import_module(name)

    yield load
    for name in ("team_code", "test_model", "train_model", "train_12ECG_classifier"):
        if name not in before:
            sys.modules.pop(name, None)


def reduced_header(header, leads):
    """Text of the header of a recording of which only some leads are left."""
    first, *rest = header.splitlines()
    name, _, *facts = first.split(" ")
    lines = {line.split(" ")[-1]: line for line in rest[:12]}
    return "\n".join([" ".join([name, str(len(leads)), *facts]), *(lines[lead] for lead in leads), *rest[12:]]) + "\n"


def write_reduced(record, folder, leads):
    """The organisers' way of making recordings with fewer leads: the rest of the files stays as it is."""
    folder.mkdir(exist_ok=True)
    adc = loadmat(f"{record.path}.mat")["val"]
    savemat(folder / f"{record.record_id}.mat", {"val": adc[[LEADS.index(lead) for lead in leads]]}, format="4")
    header = reduced_header(Path(record.header_path).read_text(), leads)
    (folder / f"{record.record_id}.hea").write_text(header)


@pytest.fixture(scope="module")
def reduced(tmp_path_factory, sample):
    """Two recordings of each set of leads."""
    folder = tmp_path_factory.mktemp("reduced")
    for i, record in enumerate(find_records(sample / "georgia")):
        write_reduced(record, folder, LEAD_SETS[i % len(LEAD_SETS)])
    return folder


def completed(adc, leads):
    """(12, n) ADC values of equal gains and no baseline: the leads there are, limb leads by the laws of Einthoven and
    Goldberger, and silence in place of the rest.
    """
    x = dict(zip(leads, adc.astype(float)))
    one = x["I"]
    two = x["II"]
    limb = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    return np.stack([x[lead] if lead in x else limb.get(lead, np.zeros_like(one)) for lead in LEADS])


@pytest.mark.parametrize("leads", LEAD_SETS, ids=len)
def test_fewer_leads_are_answered_as_if_the_others_were_computed_or_silent(leads, entry_points, model_folder, sample):
    team = entry_points("2021", "team_code")
    record = find_records(sample / "georgia")[0]
    adc = loadmat(f"{record.path}.mat")["val"]
    text = Path(record.header_path).read_text()
    part = adc[[LEADS.index(lead) for lead in leads]]
    model = team.load_model(str(model_folder), leads)
    classes, labels, probabilities = team.run_model(model, reduced_header(text, leads), part.astype(np.float64))
    _, expected_labels, expected = team.run_model(model, text, completed(part, leads))
    assert classes == list(CLASSES.codes) and len(classes) == 26
    assert set(labels) <= {0, 1} and labels.tolist() == expected_labels.tolist()
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)
    if "V1" not in leads:  # what is missing is not simply ignored
        assert abs(probabilities - team.run_model(model, text, adc)[2]).max() > 1e-4


def test_outputs_of_2021_equal_those_of_the_driver_and_are_scored(entry_points, model_folder, reduced, tmp_path):
    script = entry_points("2021", "test_model")
    assert script.main([str(model_folder), str(reduced), str(tmp_path / "out")]) == 0
    assert driver.main([str(model_folder), str(reduced), str(tmp_path / "driver")]) == 0
    names = sorted(file.name for file in reduced.glob("*.hea"))
    assert len(names) == 10 and len(list((tmp_path / "out").iterdir())) == 10
    for name in names:
        record_id, classes, labels, scores = (tmp_path / "out" / name).with_suffix(".csv").read_text().splitlines()
        by_driver = (tmp_path / "driver" / name).with_suffix(".csv").read_text().splitlines()
        assert [record_id, classes, labels] == by_driver[:3]
        np.testing.assert_allclose([*map(float, scores.split(","))], [*map(float, by_driver[3].split(","))], atol=1e-6)
    _, scores = evaluate_12ECG_score(reduced, tmp_path / "out", year=2021)
    expected = plain.evaluate(reduced, tmp_path / "out", TABLES / "weights_2021.csv")
    for name, value in expected.items():
        assert scores[name] == pytest.approx(value, abs=1e-12, nan_ok=True), name


def test_a_recording_that_fails_gets_an_output_that_is_negative_throughout(
    entry_points, model_folder, reduced, tmp_path, capsys
):
    shutil.copytree(reduced, tmp_path / "in")
    broken = sorted((tmp_path / "in").glob("*.hea"))[3]
    broken.write_text(broken.read_text().replace("1000/mV", "1000/furlong"))
    script = entry_points("2021", "test_model")
    assert script.main([str(model_folder), str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    assert "furlong" in capsys.readouterr().err
    output = tmp_path / "out" / f"{broken.stem}.csv"
    assert output.read_text() == f"#{broken.stem}\n\n\n\n"
    _, scores = evaluate_12ECG_score(tmp_path / "in", tmp_path / "out", year=2021)
    expected = plain.evaluate(tmp_path / "in", tmp_path / "out", TABLES / "weights_2021.csv")
    assert scores["challenge_metric"] == pytest.approx(expected["challenge_metric"], abs=1e-12)


def test_wrong_calls_are_told_what_to_type(entry_points, tmp_path):
    script = entry_points("2021", "test_model")
    with pytest.raises(SystemExit, match="three folders: python test_model.py MODEL DATA OUTPUTS"):
        script.main(["model"])
    with pytest.raises(SystemExit, match="holds no recordings"):
        script.main(["model", str(tmp_path), str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="two folders: python train_model.py DATA MODEL"):
        entry_points("2021", "train_model").main(["data"])


# ---- the Dockerfile, one instruction after the other, where no container engine exists


def instructions(text):
    """[(instruction, what follows)] of a Dockerfile."""
    text = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def ignored(context):
    """Filter for shutil.copytree: what the build leaves out of its context."""
    patterns = (SUBMISSION / "Dockerfile.dockerignore").read_text().split()

    def names_left_out(folder, names):
        inside = Path(folder).relative_to(context)
        deep = [pattern.removeprefix("**/") for pattern in patterns if pattern.startswith("**/")]
        top = [pattern for pattern in patterns if not pattern.startswith("**/")]
        wanted = deep + (top if inside == Path(".") else [])
        return {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)}

    return names_left_out


# Stand-ins for what would change the machine: they write down how they were called. pip needs the files it is given.
STUBS = {
    "pip": 'echo "pip $*" >> "$LOG"; for word; do case "$word" in *.txt) test -f "$word" ;; esac; done',
    "useradd": 'echo "useradd $*" >> "$LOG"',
    "chown": 'echo "chown $*" >> "$LOG"',
}


def build(context, root, **given):
    """Do the steps of submission/Dockerfile below `root`, which stands for the image's own; returns its base, its user,
    its working directory and how the stand-ins were called.
    """
    stubs = root / "stubs"
    stubs.mkdir(parents=True)
    for name, code in STUBS.items():
        (stubs / name).write_text(f"#!/bin/sh -e\n{code}\n")
        (stubs / name).chmod(0o755)
    log = root / "log.txt"
    folder = root
    values = {}
    facts = {}
    for instruction, rest in instructions((SUBMISSION / "Dockerfile").read_text()):
        rest = rest if instruction == "RUN" else re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], rest)
        if instruction == "ARG":
            name, default = rest.split("=")
            values[name] = given.get(name, default)
        elif instruction == "COPY":
            source, target = rest.split()
            shutil.copytree(context / source, root / target[1:], ignore=ignored(context), dirs_exist_ok=True)
        elif instruction == "WORKDIR":
            folder = root / rest[1:]
        elif instruction == "RUN":
            command = re.sub(r"(?<=\s)/physionet", str(root / "physionet"), rest)
            environment = {**values, "PATH": f"{stubs}:/usr/bin:/bin", "LOG": str(log)}
            subprocess.run(["sh", "-ec", command], cwd=folder, env=environment, check=True)
        else:
            assert instruction in ("FROM", "USER")
            facts[instruction] = rest
    return facts["FROM"], facts["USER"], folder, log.read_text().splitlines()


@pytest.fixture
def context(tmp_path):
    """The part of the repository that the steps need."""
    folder = tmp_path / "context"
    shutil.copytree(SUBMISSION, folder / "submission")
    shutil.copy(ROOT / "requirements.txt", folder)
    return folder


@pytest.mark.parametrize("year", ["2020", "2021"])
def test_dockerfile_lays_the_entry_points_at_the_top(year, context, tmp_path):
    for name in (".git", ".venv", "Training_WFDB", "output_2026", "submission/__pycache__"):
        (context / name).mkdir(exist_ok=True)
        (context / name / "large").touch()
    base, user, folder, calls = build(context, tmp_path / "image", YEAR=year)
    assert base == "python:3.11-slim" and user == "ecg"
    assert folder == tmp_path / "image" / "physionet"
    expected = {"requirements.txt", "submission"} | {file.name for file in (SUBMISSION / year).glob("*.py")}
    assert {file.name for file in folder.iterdir()} == expected
    assert not (folder / "submission" / "__pycache__").exists()
    assert "useradd --uid 1000 --create-home ecg" in calls


def test_scripts_that_organisers_put_at_the_top_are_kept(context, tmp_path):
    (context / "train_model.py").write_text("the organisers' own")
    _, _, folder, _ = build(context, tmp_path / "image")
    assert (folder / "train_model.py").read_text() == "the organisers' own"
    assert (folder / "team_code.py").read_bytes() == (SUBMISSION / "2021" / "team_code.py").read_bytes()


def test_dockerfile_installs_the_pinned_requirements_with_or_without_cuda(context, tmp_path):
    pin = next(line for line in (ROOT / "requirements.txt").read_text().splitlines() if line.startswith("torch=="))
    cpu = build(context, tmp_path / "cpu", TORCH_INDEX="https://index.example/cpu")[3]
    cuda = build(context, tmp_path / "cuda")[3]
    assert [call for call in cpu if call.startswith("pip")] == [
        f"pip install --no-cache-dir --index-url https://index.example/cpu {pin}",
        "pip install --no-cache-dir -r requirements.txt",
    ]
    assert [call for call in cuda if call.startswith("pip")] == ["pip install --no-cache-dir -r requirements.txt"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert all(re.match(r"#|[\w-]+==[\d.]+$", line) for line in lines)


def test_the_image_leaves_out_what_git_ignores():
    left_out = {line.removeprefix("**/") for line in (SUBMISSION / "Dockerfile.dockerignore").read_text().split()}
    git_ignores = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    assert git_ignores - {"*.py[cod]"} <= left_out and {"*.pyc", ".git"} <= left_out


@pytest.mark.slow
@pytest.mark.parametrize("year", ["2020", "2021"])
def test_an_image_trains_and_classifies(year, few, reduced, tmp_path):
    """As the organisers call the scripts, from the image's folder and in processes of their own."""
    _, _, folder, _ = build(ROOT, tmp_path / "image", YEAR=year)
    team_file = folder / {"2020": "train_12ECG_classifier.py", "2021": "team_code.py"}[year]
    team_file.write_text(f"{team_file.read_text()}\nFLAGS += {TINY}\n")
    classify = {"2020": "driver.py", "2021": "test_model.py"}[year]
    for script, *arguments in (["train_model.py", few, "model/"], [classify, "model/", reduced, "outputs"]):
        subprocess.run([sys.executable, script, *map(str, arguments)], cwd=folder, env=ENVIRONMENT, check=True)
    assert (folder / "model" / "final_model.pth").exists()
    codes = list(load_class_set(f"cinc{year}").codes)
    assert (folder / "outputs" / "E00001.csv").read_text().splitlines()[1].split(",") == codes
    _, scores = evaluate_12ECG_score(reduced, folder / "outputs", year=int(year))
    expected = plain.evaluate(reduced, folder / "outputs", TABLES / f"weights_{year}.csv")
    assert scores["challenge_metric"] == pytest.approx(expected["challenge_metric"], abs=1e-12)
