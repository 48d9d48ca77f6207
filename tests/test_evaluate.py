"""evaluate_12ECG_score.py and engine/score_files.py: the organisers' reference cases, a plain loop version, bad
input.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import plain_evaluator as plain
import pytest

import evaluate_12ECG_score as script
from data.headers import parse_header
from data.labels import TABLES, diagnosis_table, load_class_set
from data.records import find_records
from engine.score_files import ScoreFileError, find_pairs

CASES = Path(__file__).parent / "reference" / "evaluator_cases"
CODES = [code for group in load_class_set("cinc2020").members for code in group]
FIRST_PHASE = ["AF", "I-AVB", "LBBB", "Normal", "PAC", "PVC", "RBBB", "STD", "STE"]


def write(folder, record_id, dx, answers, codes=CODES, prefix="#Dx: "):
    """A label header and an output file: `dx` codes, `answers` {code: score}, positive from one half on."""
    (folder / "labels" / record_id).parent.mkdir(parents=True, exist_ok=True)
    (folder / "outputs" / record_id).parent.mkdir(parents=True, exist_ok=True)
    (folder / "labels" / f"{record_id}.hea").write_text(
        f"{record_id} 12 500 5000\n#Age: 60\n{prefix}{','.join(dx)}\n#Rx: Unknown\n"
    )
    scores = [answers.get(code, 0.1) for code in codes]
    rows = [codes, [int(score >= 0.5) for score in scores], scores]
    (folder / "outputs" / f"{record_id}.csv").write_text(
        "\n".join([f"#{record_id}"] + [",".join(map(str, row)) for row in rows]) + "\n"
    )


def random_folder(folder, n, seed=0):
    rng = np.random.default_rng(seed)
    for i in range(n):
        dx = rng.choice(CODES + ["164865005"], rng.integers(1, 4), replace=False)
        write(folder, f"R{i:05d}", dx, dict(zip(CODES, rng.random(27).round(3))) | {code: rng.random() for code in dx})
    return folder / "labels", folder / "outputs"


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


# --- what looks fine and is not


def score_text(folder, capsys, *flags):
    """(status, stdout, stderr) of the script."""
    status = script.main([str(folder / "labels"), str(folder / "outputs"), *map(str, flags)])
    return status, *capsys.readouterr()


def official(folder):
    """stdout of the script where the plain loops, which follow the official one, give the numbers."""
    expected = plain.evaluate(folder / "labels", folder / "outputs", TABLES / "weights_2020.csv")
    return script.scores_text(expected) + "\n"


def each_output(folder, change):
    for file in (folder / "outputs").iterdir():
        file.write_text(change(file.read_text()))


def each_label(folder, change):
    for file in (folder / "labels").iterdir():
        file.write_text(change(file.read_text()))


def changed_words(row, form):
    """Change of a line of an output, counted from 0: form(word) in place of each word."""

    def change(text):
        lines = text.split("\n")
        lines[row] = ",".join(form(word) for word in lines[row].split(","))
        return "\n".join(lines)

    return change


rename = partial(changed_words, 1)
decisions = partial(changed_words, 2)
scores = partial(changed_words, 3)


ABBREVIATION = {code: name for code, (name, _) in diagnosis_table().items()}


@pytest.mark.parametrize(
    "which, change, named",
    [
        ("outputs", rename(ABBREVIATION.get), "the labels have .*, the outputs IAVB, AF, AFL, ..."),
        ("outputs", rename("SNOMED_{}".format), "share no class"),
        ("outputs", lambda text: "", "no output file is well-formed"),
        ("outputs", lambda text: text.split("\n", 3)[3], "no output file is well-formed"),
        ("outputs", lambda text: text.replace("0.", "0,"), "no output file is well-formed"),
        ("outputs", lambda text: "<html>\nnot found\n</html>\n", "share no class"),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx:", text), "no label file has a diagnosis"),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: Unknown", text), "no label file has a diagnosis"),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: 164865005,I21.0", text), "the labels have 164865005, I21.0, "),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: SNR", text), "the labels have SNR, the outputs 270492004, "),
        ("labels", lambda text: re.sub("#Dx: .*", "#Dx: AF", text), "the labels have AF, the outputs 270492004, "),
    ],
)
def test_outputs_and_labels_without_a_common_class_are_refused(tmp_path, capsys, which, change, named):
    random_folder(tmp_path, 8)
    {"outputs": each_output, "labels": each_label}[which](tmp_path, change)
    status, out, err = score_text(tmp_path, capsys, tmp_path / "scores.csv")
    assert status == 1 and out == "" and err.count("\n") == 1 and not (tmp_path / "scores.csv").exists()
    assert re.search(named, err), err


@pytest.mark.parametrize("kind", ["labels", "outputs"])
@pytest.mark.parametrize("mark", [";", " ; ", "|", "\t", " "])
def test_other_separators_get_the_official_numbers_and_a_remark(tmp_path, capsys, kind, mark):
    random_folder(tmp_path, 20)
    if kind == "labels":
        each_label(tmp_path, lambda text: re.sub("#Dx: (.*)", lambda dx: dx[0].replace(",", mark), text))
        remark = (
            r"diagnoses of the labels \(the first: '.*' in .*R000..\.hea\) are not SNOMED CT codes separated by commas"
        )
    else:
        each_output(tmp_path, lambda text: text.replace(",", mark))
        remark = "1 classes of the output files are not SNOMED CT codes separated by commas.*270492004"
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path) and re.search(remark, err), err


@pytest.mark.parametrize(
    "change, remark",
    [
        (
            decisions("{}.0".format),
            r"540 decisions \(the first: '.\.0' in .*csv\) are neither 0 nor 1: they count as 0",
        ),
        (decisions(lambda word: word.replace("1", "yes")), "decisions .*'yes' in .* are neither 0 nor 1"),
        (decisions(lambda word: word.replace("1", "")), r"decisions \(the first: '' in"),
        (decisions(lambda word: "0.7"), "540 decisions .* neither 0 nor 1"),
        (decisions(lambda word: "nan"), "540 decisions .* neither 0 nor 1"),
        (decisions(lambda word: "2"), "540 decisions .* neither 0 nor 1"),
        (decisions(lambda word: "0"), "every decision is 0: the scores that depend on decisions say nothing"),
        (decisions(lambda word: "True"), "every decision is 1"),
        (scores(lambda word: f"{100 * float(word):g}"), "the scores reach from .* to 100: they are not probabilities"),
        (scores(lambda word: f"{float(word) - 0.5}"), "the scores reach from -0.* not probabilities"),
        (scores(lambda word: "inf"), "the scores reach from inf to inf"),
        (scores(lambda word: "0.5"), "every score is 0.5: AUROC and AUPRC say nothing"),
        (scores(lambda word: f"{word}%"), r"540 scores \(the first: '.*%' in .*\) are not numbers: they count as 0"),
        (scores(lambda word: "NaN"), "540 scores .*'NaN' in .* are not numbers: they count as 0"),
        (scores(lambda word: ""), "540 scores .*'' in .* are not numbers"),
        (rename(lambda code: code if code != "426783006" else "SNR"), "426783006 .*recordings.*"),
        (rename('"{}"'.format), """27 classes of the output files are not SNOMED CT codes .*'"270492004"', """),
        (rename("{}.0".format), "27 classes of the output files are not SNOMED CT codes .*'270492004.0', "),
        (rename(lambda code: code if code != "426783006" else ""), "classes of the labels that no output file has"),
        (lambda text: "\ufeff" + text.split("\n", 1)[1], "no output file has, counted as negative: IAVB 270492004 "),
        (lambda text: text.split("\n", 1)[1], None),  # the line with the recording's name may be missing
        (lambda text: text.replace(",", " , ").replace("\n", "\r\n"), None),
        (decisions({"0": "False", "1": "T"}.get), None),
    ],
)
def test_strange_outputs_get_the_official_numbers_and_a_remark(tmp_path, capsys, change, remark):
    random_folder(tmp_path, 20)
    each_output(tmp_path, change)
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path)
    assert err == "" if remark is None else re.search(remark, err), err


def test_a_class_that_some_outputs_lack_is_named_with_its_recordings(tmp_path, capsys):
    for i, codes in enumerate((CODES, CODES, CODES[1:])):
        write(tmp_path, f"R{i}", CODES[:2], {}, codes=codes)
    write(tmp_path, "R3", ["164865005"], {}, codes=CODES[2:])  # of what they lack it has no label
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path)
    assert "recordings labelled so lack, counted as negative: IAVB 270492004 (1 of 3 recordings)\n" in err


def test_malformed_files_are_named_but_not_by_the_thousand(tmp_path, capsys):
    random_folder(tmp_path, 40)
    for i in range(30):
        (tmp_path / "outputs" / f"R{i:05d}.csv").write_text("#R\n")
    status, out, err = score_text(tmp_path, capsys)
    assert status == 0 and out == official(tmp_path)
    assert err.count("not a well-formed output file") == 10 and "... and 20 more files" in err


def test_outputs_without_a_label_are_said_to_be_left_out(tmp_path, capsys):
    labels, outputs = random_folder(tmp_path, 5)
    shutil.copy(outputs / "R00001.csv", outputs / "extra.csv")
    (outputs / "a").mkdir()
    shutil.copy(outputs / "R00001.csv", outputs / "a" / "R00001.csv")
    for name in ("skipped_records.csv", "summary.csv"):  # as driver.py writes them
        (outputs / name).write_text("record,stage,reason\n")
    (outputs / "pipe.csv").symlink_to("/dev/zero")
    expected = script.evaluate_12ECG_score(labels, outputs)
    _, out, err = score_text(tmp_path, capsys)
    assert "2 output files without a label file are left out: a/R00001.csv, extra.csv\n" in err
    shutil.rmtree(outputs / "a")
    (outputs / "extra.csv").unlink()
    np.testing.assert_equal(script.evaluate_12ECG_score(labels, outputs), expected)


def test_outputs_of_another_year_are_remarked_upon(tmp_path, capsys):
    for i, code in enumerate(("426783006", "164889003", "164909002")):
        codes = load_class_set("cinc2021").codes
        write(tmp_path, f"R{i}", [code], {code: 0.9, "733534002": 0.9 * (i == 2)}, codes=codes)
    _, by_2021, err = score_text(tmp_path, capsys, "--year", 2021)
    assert err == "" and by_2021.endswith("1.000\n")
    status, out, err = score_text(tmp_path, capsys)
    assert (
        status == 0 and out == official(tmp_path) and "no output file has, counted as negative: LBBB 164909002" in err
    )
    assert "scored in 2021 and not in 2020: " in err and "--year 2021 scores them" in err
    for file in (tmp_path / "outputs").iterdir():
        file.unlink()
    for i in range(3):  # codes of 2020 by the matrix of 2021, which has them all
        write(tmp_path, f"R{i}", ["426783006"], {"426783006": 0.9})
    assert score_text(tmp_path, capsys, "--year", 2021)[2] == ""


def test_first_phase_scores_of_every_class(tmp_path, run_script):
    case = CASES / "cpsc9_1"
    run_script("evaluate_12ECG_score.py", case / "labels", case / "outputs", "s.csv", "c.csv", cwd=tmp_path)
    lines = [line.split(",") for line in (tmp_path / "c.csv").read_text().split("\n")]
    assert [line[0] for line in lines] == ["Classes", "AUROC", "AUPRC", "F-measure"] and lines[0][1:] == FIRST_PHASE
    rows = [plain.read_output(file, [(n,) for n in FIRST_PHASE]) for file in sorted((case / "outputs").iterdir())]
    labels = [file.read_text() for file in sorted((case / "labels").iterdir())]
    dx = [re.search("#Dx: (.*)", text)[1].split(",") for text in labels]
    y_true = [[name in words for name in FIRST_PHASE] for words in dx]
    expected = plain.first_phase_scores_by_class(y_true, [row[0] for row in rows], [row[1] for row in rows])
    for line, name in zip(lines[1:], ("auroc", "auprc", "f_measure")):
        assert line[1:] == [f"{value:.3f}" for value in expected[name]]
    means = [float(value) for value in (tmp_path / "s.csv").read_text().split("\n")[1].split("|")]
    assert np.mean([float(value) for value in lines[1][1:]]) == pytest.approx(means[0], abs=1e-3)


def test_a_recording_is_what_it_is_for_the_driver(tmp_path, capsys):
    """Headers in capitals are labels, segments of a multi-segment recording are not."""
    labels, outputs = random_folder(tmp_path, 6)
    (labels / "R00000.hea").rename(labels / "R00000.HEA")
    (labels / "R00001.hea").write_text("R00001/2 12 500 5000\nR00001_1 2500\nR00001_2 2500\n#Dx: 426783006\n")
    for i in (1, 2):
        (labels / f"R00001_{i}.hea").write_text(f"R00001_{i} 12 500 2500\n")
    (labels / "R00002.hea").write_text("# made by hand\nR00002/3 12 500 5000\nlayout 0\nx 5000\n~ 1\n#Dx: 426783006\n")
    for name in ("layout", "x"):
        (labels / f"{name}.hea").write_text(f"{name} 12 500 0\n#Dx: 164889003\n")
    records = find_records(labels)
    pairs = find_pairs(labels, outputs)
    assert [record.record_id for record in records] == [Path(path).stem for path in pairs.outputs]
    assert len(records) == 6 and pairs.dx[1] == ["426783006"]
    assert score_text(tmp_path, capsys)[0] == 0


def test_folders_whose_names_are_not_utf8_and_a_tilde(tmp_path, run_script, monkeypatch):
    random_folder(tmp_path / "home", 5)
    expected = official(tmp_path / "home")
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    os.rename(tmp_path / "home", odd)
    done = run_script("evaluate_12ECG_score.py", f"{odd}/labels", f"{odd}/outputs", cwd=tmp_path)
    assert done.stdout == expected
    os.unlink(f"{odd}/outputs/R00003.csv")
    done = run_script("evaluate_12ECG_score.py", f"{odd}/labels", f"{odd}/outputs", cwd=tmp_path, check=False)
    assert done.returncode == 1 and "R00003.csv: no output file" in done.stderr and "Traceback" not in done.stderr
    random_folder(tmp_path / "home", 5)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert script.main(["~/labels", "~/outputs", "~/s.csv"]) == 0
    assert (tmp_path / "home" / "s.csv").read_text() + "\n" == expected
    for arguments in (["", "~/outputs"], ["~/labels", ""]):
        with pytest.raises(SystemExit):
            script.main(arguments)


def test_empty_folders_are_errors(tmp_path, capsys):
    (tmp_path / "labels").mkdir()
    (tmp_path / "outputs").mkdir()
    assert score_text(tmp_path, capsys)[0] == 1
    write(tmp_path, "R0", ["426783006"], {})
    (tmp_path / "outputs" / "R0.csv").unlink()
    status, out, err = score_text(tmp_path, capsys)
    assert status == 1 and out == "" and "R0.csv: no output file for the label file" in err
