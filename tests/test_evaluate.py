"""evaluate_12ECG_score.py and engine/score_files.py: the organisers' reference cases, a plain loop version, bad
input.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import plain_evaluator as plain
import pytest
from scored_folder import random_folder, write

import evaluate_12ECG_score as script
from data.headers import parse_header
from data.labels import TABLES, load_class_set
from engine.score_files import ScoreFileError, find_pairs

CASES = Path(__file__).parent / "reference" / "evaluator_cases"
FIRST_PHASE = ["AF", "I-AVB", "LBBB", "Normal", "PAC", "PVC", "RBBB", "STD", "STE"]


def assert_equal(scores, expected):
    for name, value in expected.items():
        value = np.array(value, float)
        np.testing.assert_array_equal(np.isnan(scores[name]), np.isnan(value), err_msg=name)
        np.testing.assert_allclose(scores[name], value, rtol=0, atol=1e-12, equal_nan=True, err_msg=name)


@pytest.mark.parametrize("case", sorted(path.name for path in CASES.iterdir()))
def test_reference_cases(case, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    expected = json.loads((CASES / case / "expected.json").read_text())
    classes, scores = script.evaluate_12ECG_score(CASES / case / "labels", CASES / case / "outputs")
    assert classes == expected.pop("classes", FIRST_PHASE)
    assert len(expected) >= 6
    assert_equal(scores, expected)


def test_random_folder_equals_the_plain_loops(tmp_path):
    folders = random_folder(tmp_path, 60)
    expected = plain.evaluate(*folders, TABLES / "weights_2020.csv")
    assert_equal(script.evaluate_12ECG_score(*folders)[1], expected)
    by_2021 = script.evaluate_12ECG_score(*folders, 2021)
    assert by_2021[0] == list(load_class_set("cinc2021").codes)
    assert by_2021[1]["challenge_metric"] != expected["challenge_metric"]


def test_official_text_and_files(tmp_path, run_script):
    labels, outputs = CASES / "plain_1" / "labels", CASES / "plain_1" / "outputs"
    names = "AUROC,AUPRC,Accuracy,F-measure,Fbeta-measure,Gbeta-measure,Challenge metric"
    values = f"{names}\n0.903,0.576,0.000,0.186,0.223,0.090,-0.175"
    assert run_script("evaluate_12ECG_score.py", labels, outputs, cwd=tmp_path).stdout == values + "\n"
    done = run_script("evaluate_12ECG_score.py", labels, outputs, "s.csv", "c.csv", cwd=tmp_path)
    assert done.stdout == done.stderr == "" and (tmp_path / "s.csv").read_text() == values
    lines = [line.split(",") for line in (tmp_path / "c.csv").read_text().split("\n")]
    assert [line[0] for line in lines] == ["Classes", "AUROC", "AUPRC", "F-measure"]
    assert lines[0][1:] == list(load_class_set("cinc2020").codes) and lines[1][1:4] == ["0.818", "0.977", "nan"]
    assert {len(line) for line in lines} == {25} and sorted(p.name for p in tmp_path.iterdir()) == ["c.csv", "s.csv"]
    done = run_script(
        "evaluate_12ECG_score.py", CASES / "cpsc9_1" / "labels", CASES / "cpsc9_1" / "outputs", cwd=tmp_path
    )
    assert (
        done.stdout
        == "AUROC|AUPRC|Accuracy|F-measure|Fbeta-measure|Gbeta-measure\n0.876|0.703|0.838|0.520|0.632|0.327\n"
    )


def test_malformed_outputs_are_reported(capsys):
    assert script.main([str(CASES / "quirks_1" / "labels"), str(CASES / "quirks_1" / "outputs")]) == 0
    out, err = capsys.readouterr()
    assert out.endswith("0.791,0.396,0.000,0.229,0.283,0.122,0.180\n") and "HR13003.csv: not a well-formed" in err


def test_labels_as_other_sources_write_them(tmp_path):
    """Where the official script crashes or shifts labels: the spelling of 2021, no blank, two lines, foreign line
    ends.
    """
    spellings = ["#Dx: ", "# Dx: ", "#DX:", "#Dx: 164889003\n#Dx: "]
    dx = [["426783006"], ["164889003"], ["164890007", "426783006"], ["270492004"]]
    for i, (prefix, codes) in enumerate(zip(spellings, dx)):
        write(tmp_path, f"R{i}", codes, dict.fromkeys(codes, 0.9), prefix=prefix)
        header = tmp_path / "labels" / f"R{i}.hea"
        header.write_bytes(header.read_bytes().replace(b"\n", [b"\n", b"\r\n", b"\r"][i % 3]))
    dx[3] = ["164889003", "270492004"]
    assert find_pairs(tmp_path / "labels", tmp_path / "outputs").dx == dx
    _, scores = script.evaluate_12ECG_score(tmp_path / "labels", tmp_path / "outputs")
    assert scores["accuracy"] == 0.75 and scores["f_measure_classes"][1] == pytest.approx(2 / 3)


@pytest.mark.parametrize("case", ["plain_1", "quirks_1", "cpsc9_1"])
def test_diagnoses_are_those_of_the_header_parser(case):
    pairs = find_pairs(CASES / case / "labels", CASES / case / "outputs")
    assert len(pairs.dx) == 45
    for path, dx in zip(pairs.headers, pairs.dx):
        assert tuple(dx) == parse_header(Path(path).read_text().splitlines()).dx


def test_nested_folders(tmp_path):
    for record_id in ("a/R1", "b/R1", "b/c/R2", "R3", ".hidden/R4", ".R5"):
        code = {"a/R1": "164889003"}.get(record_id, "426783006")
        write(tmp_path, record_id, [code], {code: 0.9})
    (tmp_path / "outputs" / "b" / "c" / "R2.csv").rename(
        tmp_path / "outputs" / "R2.csv"
    )  # unique, so it may lie on top
    pairs = find_pairs(tmp_path / "labels", tmp_path / "outputs")
    places = [path.removeprefix(str(tmp_path)) for path in pairs.outputs]
    assert places == ["/outputs/R3.csv", "/outputs/a/R1.csv", "/outputs/b/R1.csv", "/outputs/R2.csv"]
    assert script.evaluate_12ECG_score(tmp_path / "labels", tmp_path / "outputs")[1]["accuracy"] == 1
    (tmp_path / "outputs" / "b" / "R1.csv").rename(tmp_path / "outputs" / "R1.csv")  # whose is it?
    with pytest.raises(ScoreFileError, match="b/R1.csv: no output file for the label file .*b/R1.hea"):
        find_pairs(tmp_path / "labels", tmp_path / "outputs")


def test_first_phase_matches_columns_by_name(tmp_path):
    rng = np.random.default_rng(0)
    y_true, y_pred, y_score = [], [], []
    for i in range(30):
        dx = list(rng.choice(FIRST_PHASE[:8], rng.integers(1, 3), replace=False))  # STE occurs in outputs only
        answers = dict(zip(FIRST_PHASE, rng.random(9).round(1)))
        write(tmp_path, f"A{i:04d}", dx, answers, codes=list(rng.permutation(FIRST_PHASE)))
        y_true.append([name in dx for name in FIRST_PHASE])
        y_score.append([float(answers[name]) for name in FIRST_PHASE])
        y_pred.append([score >= 0.5 for score in y_score[-1]])
    classes, scores = script.evaluate_12ECG_score(tmp_path / "labels", tmp_path / "outputs")
    assert classes == FIRST_PHASE
    assert_equal(scores, plain.first_phase_scores(y_true, y_pred, y_score))


def _break(folder, fault):
    labels, outputs = folder / "labels", folder / "outputs"
    if fault == "outputs folder":
        shutil.rmtree(outputs)
    elif fault == "no labels":
        (labels / "R00000.hea").rename(labels / ".R00000.hea")
    elif fault == "missing output":
        (outputs / "R00000.csv").unlink()
    elif fault == "no diagnosis line":
        (labels / "R00000.hea").write_text("R00000 12 500 5000\n#Age: 60\n#Sex: F\n")
    elif fault == "output is a folder":
        (outputs / "R00000.csv").unlink()
        (outputs / "R00000.csv").mkdir()
    elif fault == "first phase":
        write(folder, "R00000", ["AF"], {}, codes=FIRST_PHASE[1:])
    elif fault == "first phase score":
        text = (CASES / "cpsc9_1" / "outputs" / "A0001.csv").read_text().replace("0.334", "high")
        (labels / "R00000.hea").write_text("R00000 12 500 5000\n#Dx: AF\n")
        (outputs / "R00000.csv").write_text(text)


@pytest.mark.parametrize(
    "fault, named",
    [
        ("outputs folder", "outputs is not a folder"),
        ("no labels", "labels: no label files"),
        ("missing output", "R00000.csv: no output file"),
        ("no diagnosis line", "R00000.hea: no line with the diagnoses"),
        ("output is a folder", "R00000.csv: no output file"),
        ("first phase", "R00000.csv: the classes must be AF,I-AVB"),
        ("first phase score", "R00000.csv: a decision or score is not a number .*high"),
    ],
)
def test_wrong_input_is_named_and_nothing_is_written(tmp_path, capsys, fault, named):
    random_folder(tmp_path, 1)
    _break(tmp_path, fault)
    paths = [tmp_path / name for name in ("labels", "outputs", "scores.csv")]
    assert script.main(list(map(str, paths))) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and not paths[2].exists()
    assert re.search(named, err), err


def test_wrong_command_line(tmp_path, run_script):
    for arguments in ((), ("labels",), ("labels", "outputs", "--year", "2019"), ("a", "b", "c", "d", "e")):
        done = run_script("evaluate_12ECG_score.py", *arguments, cwd=tmp_path, check=False)
        assert done.returncode == 2 and "Traceback" not in done.stderr
    done = run_script("evaluate_12ECG_score.py", "labels", "outputs", cwd=tmp_path, check=False)
    assert done.returncode == 1 and done.stderr == "evaluate_12ECG_score.py: labels is not a folder\n"
    labels, outputs = CASES / "plain_1" / "labels", CASES / "plain_1" / "outputs"
    done = run_script(
        "evaluate_12ECG_score.py", labels, outputs, tmp_path / "none" / "s.csv", cwd=tmp_path, check=False
    )
    assert done.returncode == 1 and "none" in done.stderr and "Traceback" not in done.stderr


def test_neither_torch_nor_pandas_is_loaded():
    code = "import sys, evaluate_12ECG_score; print(sorted({'torch', 'pandas', 'scipy', 'wfdb'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(script.__file__).parent, capture_output=True, text=True
    )
    assert done.stdout == "[]\n"
